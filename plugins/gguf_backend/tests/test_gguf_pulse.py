"""From within one native call the engines show that they compute, and only then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lmx_gguf_backend import embedding, engine

from lmx_kernel.engine import LongSteps
from lmx_kernel.testing.driver import Driver
from lmx_kernel.types import EngineSpec, LoadOptions, Location

ROWS = [1, *range(3, 300)]
POOLING = ("llama.pooling_type", (4, 1))


def pulses_within(engine: LongSteps, call: Callable[[], object]) -> list[int | None]:
    """Return what another thread is told during one call, each change once."""
    told: list[int | None] = [engine.pulse()]
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            if (pulse := engine.pulse()) != told[-1]:
                told.append(pulse)
            time.sleep(0.0005)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        call()
    finally:
        over.set()
        reader.join()
    return told


def test_a_computation_shows_that_it_goes_on_and_where_it_ends(demo: Driver) -> None:
    """Five changes or more in one piece of a prompt, so the beats of each second would differ."""
    demo.add(0, ROWS)
    told = pulses_within(demo.engine, demo.step)  # type: ignore[arg-type]
    assert len(told) >= 5
    demo.engine.pulse()  # type: ignore[attr-defined]
    assert demo.engine.pulse() == demo.engine.pulse()  # type: ignore[attr-defined]


def open_encoder(tiny: Any, folder: Path) -> Any:
    from lmx_gguf_backend.backend import GgufBackend
    from lmx_gguf_backend.worker import lmx_open_engine

    key, value = POOLING
    tiny.metadata[key] = value
    path = tiny.write(folder / "pooled.gguf")
    card = GgufBackend().identify(Location("model", path.parent, (path.name,)))[0]
    options = LoadOptions(context_length=512, parallel=1, cache_tokens=512)
    return lmx_open_engine(EngineSpec(card=card, options=options, settings={}), lambda *_: None)


@pytest.mark.parametrize("kind", ["continues", "embeds"])
def test_each_engine_has_a_pulse_while_it_computes_and_none_of_its_own(
    kind: str, tiny: Any, tmp_path: Path, tiny_driver: Driver
) -> None:
    if kind == "embeds":
        one: Any = open_encoder(tiny, tmp_path)
        compute: Callable[[], object] = lambda: one.embed([ROWS])  # noqa: E731
    else:
        one = tiny_driver.engine
        tiny_driver.add(0, ROWS)
        compute = tiny_driver.step
    assert isinstance(one, LongSteps)
    one.pulse()
    before = one.pulse()
    assert one.pulse() == before
    compute()
    after = one.pulse()
    assert after != before
    assert one.pulse() == after


def test_a_library_for_a_gpu_says_that_it_cannot_tell(
    tiny: Any, tmp_path: Path, tiny_driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = open_encoder(tiny, tmp_path)
    for module in (engine, embedding):
        monkeypatch.setattr(module, "has_gpu", lambda: True)
    assert tiny_driver.engine.pulse() is None  # type: ignore[attr-defined]
    assert encoder.pulse() is None
