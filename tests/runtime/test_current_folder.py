"""No code from the current folder runs in a worker: it may hold anybody's files."""

from __future__ import annotations

from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import ask, running_kernel


async def test_a_worker_imports_nothing_from_the_current_folder(tmp_path, monkeypatch):
    folder = tmp_path / "cloned"
    folder.mkdir()
    for name in ("attrs", "msgspec", "numpy", "structlog", "lmx_kernel"):
        (folder / f"{name}.py").write_text("raise SystemExit('not this file')")
    monkeypatch.chdir(folder)
    async with running_kernel(tmp_path, {"m": FakeModel(answer_tokens=2)}) as running:
        with await running.kernel.generate(ask("m")) as answer:
            assert [event async for event in answer]
