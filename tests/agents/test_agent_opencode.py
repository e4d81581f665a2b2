"""opencode, headless, through `/v1/chat/completions`, with the settings that the README shows."""

from __future__ import annotations

import json
import re
from pathlib import Path

from agent_run import call, run
from lmx_openai_api.settings import OpenAISettings
from lmx_openai_api.surface import OpenAISurface

from lmx_kernel.errors import QueueFullError
from lmx_kernel.testing.client_programs import client_program
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.stub_kernel import MODEL, StubKernel, serving

README = Path(__file__).parents[2] / "README.md"
ASKED = "Please make the file and count it."
ENDS = "The file has two lines."
OFFLINE = {
    "OPENCODE_DISABLE_AUTOUPDATE": "1",
    "OPENCODE_DISABLE_MODELS_FETCH": "1",
    "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1",
    "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
}


def settings(url, model="player"):
    """Return the README's `opencode.json` for another server and model."""
    (block,) = re.findall(r"`opencode.json`.*?```json\n(.*?)```", README.read_text(), re.DOTALL)
    written = block.replace("http://127.0.0.1:1234", url).replace("NAME", model)
    return json.dumps(json.loads(written) | {"permission": {"bash": "allow"}})


async def test_a_file_is_written_and_a_command_run_though_the_worker_dies_in_the_first_call(
    play, folder
):
    program = client_program("opencode")
    written = "printf 'one\\ntwo\\n' > poem.txt; echo WRITTEN-$((1+1))"
    write = call("bash", command=written, description="Write the file")
    count = call("bash", command="echo LINES-$(wc -l < poem.txt)", description="Count its lines")
    replies = ((ASKED, write), ("WRITTEN-2", count), ("LINES-2", ENDS))
    async with play(FakeModel(context_length=400_000, replies=replies, crash_at=60)) as url:
        (folder / "opencode.json").write_text(settings(url))
        turn = await run([program, "run", ASKED], folder, **OFFLINE)
    assert turn.status == 0, turn.err
    assert turn.out.strip().endswith(ENDS)
    assert (folder / "poem.txt").read_text() == "one\ntwo\n"


async def test_it_waits_for_a_full_queue(folder):
    program = client_program("opencode")
    kernel = StubKernel()
    speak, refused = kernel.play, []

    def play(answer):
        if answer.request.prompt.tools and not refused:
            refused.append(answer)
            raise QueueFullError("full", retry_after_s=1)
        speak(answer)

    kernel.play = play
    async with serving(OpenAISurface(kernel, OpenAISettings())) as url:
        (folder / "opencode.json").write_text(settings(url, MODEL))
        turn = await run([program, "run", ASKED], folder, **OFFLINE)
    assert turn.status == 0, turn.err
    assert refused
    assert turn.out.strip().endswith("Hello")
