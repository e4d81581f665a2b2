"""opencode, headless, through `/v1/chat/completions`, with the settings that the README shows."""

from __future__ import annotations

import json
import re
from pathlib import Path

from agent_run import call, run

from lmx_kernel.testing.client_programs import client_program
from lmx_kernel.testing.fake_model import FakeModel

README = Path(__file__).parents[2] / "README.md"
ASKED = "Please make the file and count it."
ENDS = "The file has two lines."
OFFLINE = {
    "OPENCODE_DISABLE_AUTOUPDATE": "1",
    "OPENCODE_DISABLE_MODELS_FETCH": "1",
    "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1",
    "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
}


def settings(url):
    """Return the README's `opencode.json` for another server and model."""
    (block,) = re.findall(r"`opencode.json`.*?```json\n(.*?)```", README.read_text(), re.DOTALL)
    written = block.replace("http://127.0.0.1:1234", url).replace("NAME", "player")
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
