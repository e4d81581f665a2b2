"""One conversation means the same in each dialect, on real models in both engines."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from asking import DIALECTS, Ask, Turn, say
from attrs import evolve
from lmx_mlx_backend.convert.convert import convert

from lmx_kernel.testing.harness import running_daemon

HOME = Path(os.environ.get("LMX_HOME") or "~/.lmx").expanduser()
MODEL = "smollm2-135m-instruct"
GGUF = HOME / "models" / MODEL / "SmolLM2-135M-Instruct.Q4_1.gguf"
CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Oslo"]}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS = {"weather": CITY}
TEXT = Ask(model=MODEL, turns=(Turn("user", "Name three colors."),), max_tokens=8)
CALL = Ask(
    model=MODEL,
    turns=(Turn("user", "What is the weather in Rome?"),),
    tools=TOOLS,
    must_call=True,
    max_tokens=60,
)
HISTORY = evolve(
    CALL,
    turns=(
        Turn("system", "Be brief."),
        *CALL.turns,
        Turn("assistant", "A moment.", calls=(("call_1", "weather", {"city": "Rome"}),)),
        Turn("tool", "Sunny.", answers="call_1"),
        Turn("system", "Mind the date."),
        Turn("user", "And in Oslo?"),
    ),
    max_tokens=24,
    must_call=False,
)


@asynccontextmanager
async def serving(engine, folder):
    """Serve the model through an engine; yield a client, and the model's id."""
    if not GGUF.exists():
        pytest.fail("the demo model is missing: run `make demo`", pytrace=False)
    models, model = GGUF.parent.parent, MODEL
    if engine == "mlx":
        models, model = folder / "models", "small-mlx"
        convert(GGUF, models / model, is_plain=True)
    config = folder / "config.toml"
    config.write_text(
        f"[model_folders]\nhome = false\nhugging_face = false\nlm_studio = false\n"
        f'paths = ["{models}"]\n[models]\ncontext_length = 1024\n[mlx]\nthreads = 1\n'
    )
    async with (
        running_daemon(config) as daemon,
        httpx2.AsyncClient(base_url=daemon.url, timeout=120) as http,
    ):
        yield http, model


@pytest.mark.parametrize(
    ("engine", "asks", "ways"),
    [
        pytest.param("gguf", [TEXT, CALL], [True], id="gguf-few"),
        pytest.param("gguf", [TEXT, CALL, HISTORY], [False, True], marks=pytest.mark.full),
        pytest.param("mlx", [TEXT, CALL, HISTORY], [False, True], marks=pytest.mark.full),
    ],
)
@pytest.mark.timeout(600)
async def test_one_conversation_has_one_answer(tmp_path, engine, asks, ways):
    async with serving(engine, tmp_path) as (http, model):
        for ask in asks:
            asked = evolve(ask, model=model)
            said = {
                (name, stream): await say(http, dialect, asked, stream=stream)
                for name, dialect in DIALECTS.items()
                for stream in ways
            }
            first = said["chat", ways[0]]
            assert not first.error
            assert first.text or first.calls
            assert said == dict.fromkeys(said, first)
            if ask.must_call:
                assert first.end == "tool_calls"
                assert [name for name, _ in first.calls] == ["weather"]
