"""The transcript of a kernel with a fake model."""

import asyncio
import json

from lmx_transcript import _files

from lmx_kernel.api import TextDelta
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import ask, running_kernel


async def test_an_answer_is_a_line_and_the_file_is_closed_with_the_plugin(tmp_path):
    path = tmp_path / "transcript.jsonl"
    async with running_kernel(tmp_path, {"m": FakeModel()}, plugins=("lmx_transcript",)) as stage:
        assert await stage.kernel.count_tokens(ask("m")) > 0
        assert not path.exists()
        with await stage.kernel.generate(ask("m", max_tokens=4)) as answer:
            text = "".join([one.text async for one in answer if isinstance(one, TextDelta)])
        async with asyncio.timeout(30):
            while not path.read_text():  # answers reach plugins in a thread of their own
                await asyncio.sleep(0.01)
        assert json.loads(path.read_text()) == {
            "id": answer.id,
            "model": "m",
            "outcome": "ok",
            "tokens": 4,
            "text": text,
        }
        assert path.stat().st_mode & 0o777 == 0o600
        file = _files[path]
        await stage.kernel.disable_plugin("lmx_transcript")
        assert file.closed
