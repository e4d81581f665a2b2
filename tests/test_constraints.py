"""Answers that must look like something, from real models on both engines."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from contextlib import asynccontextmanager
from pathlib import Path

import jsonschema
import pytest
from attrs import evolve
from lmx_mlx_backend.convert.convert import convert

from lmx_kernel.errors import InvalidSchemaError
from lmx_kernel.events import WorkerCrashed
from lmx_kernel.testing.harness import ask, running_kernel
from lmx_kernel.types import (
    ChatPrompt,
    Constraint,
    Finished,
    Message,
    SamplingRequest,
    TextDelta,
    TextPart,
    Tool,
    ToolCallDelta,
    ToolCallStarted,
    ToolChoice,
)

HOME = Path(os.environ.get("LMX_HOME") or "~/.lmx").expanduser()
GGUF = HOME / "models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL = "smollm2-135m-instruct"
ONE_THREAD = "[mlx]\nthreads = 1\n"  # on a busy machine more of them wait for each other
PLUGINS = (
    "lmx_model_folders.plugin",
    "lmx_gguf_backend.backend",
    "lmx_mlx_backend.backend",
)
GREEDY = SamplingRequest(temperature=0, seed=1)
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "maxItems": 4},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


# --- schemas -------------------------------------------------------------------------------------


def random_schema(seed, depth=3):
    """Return a schema that a short answer can fit."""
    dice = random.Random(seed)
    return _object(dice, depth)


def _object(dice, depth):
    names = dice.sample(
        ["id", "name", "size", "kind", "where", "parts", "note"], dice.randint(1, 4)
    )
    schema = {
        "type": "object",
        "properties": {name: _any(dice, depth - 1) for name in names},
        "required": [name for name in names if dice.random() < 0.8],
    }
    if dice.random() < 0.8:
        schema["additionalProperties"] = False
    return schema


def _any(dice, depth):
    deep = [_object, _array, _either] if depth > 0 else []
    return dice.choice([_string, _string, _number, _enum, _plain, *deep])(dice, depth)


def _array(dice, depth):
    fewest = dice.randint(0, 1)
    return {
        "type": "array",
        "items": _any(dice, depth - 1),
        "minItems": fewest,
        "maxItems": fewest + dice.randint(1, 2),
    }


def _either(dice, depth):
    return {"anyOf": [_any(dice, depth - 1), {"type": "null"}]}


def _string(dice, depth):
    return dice.choice(
        [
            {"type": "string", "maxLength": dice.randint(1, 20)},
            {"type": "string", "minLength": 2, "maxLength": 8},
            {"type": "string", "pattern": "^[A-Z]{2}[0-9]{1,3}$"},
            {"type": "string", "format": "date"},
        ]
    )


def _number(dice, depth):
    low = dice.randint(-50, 50)
    return {
        "type": dice.choice(["integer", "number"]),
        "minimum": low,
        "maximum": low + dice.randint(1, 1000),
    }


def _enum(dice, depth):
    return {"enum": dice.sample(["a", "two words", 3, None, True, "\u00e9t\u00e9", 'quo"te'], 3)}


def _plain(dice, depth):
    return {"type": dice.choice(["boolean", "null", "integer"])}


# --- a kernel with a real model ------------------------------------------------------------------


@pytest.fixture(scope="session")
def converted(tmp_path_factory):
    """The demo model for MLX."""
    folder = tmp_path_factory.mktemp("converted") / "small-mlx"
    convert(GGUF, folder, is_plain=True)
    return folder


@pytest.fixture(params=["gguf", "mlx"])
def model(request):
    """The id of the demo model as one of the backends serves it, and the folder that it is in."""
    if not GGUF.exists():
        pytest.fail("the demo model is missing: run `make demo`", pytrace=False)
    if request.param == "gguf":
        return MODEL, GGUF.parent.parent
    folder = request.getfixturevalue("converted")
    return folder.name, folder.parent


@asynccontextmanager
async def serving(tmp_path, folder, config=""):
    folders = f'[model_folders]\nhome = false\nhugging_face = false\npaths = ["{folder}"]\n'
    async with running_kernel(
        tmp_path, {}, f"{folders}lm_studio = false\n{ONE_THREAD}{config}", PLUGINS
    ) as stage:
        yield stage.kernel, stage


class Told:
    """What an answer said, candidate by candidate."""

    def __init__(self, count):
        self.texts = [""] * count
        self.calls = [[] for _ in range(count)]
        self.reasons = [None] * count
        self.tokens = [0] * count

    def add(self, event):
        if isinstance(event, TextDelta):
            self.texts[event.candidate] += event.text
            self.tokens[event.candidate] += len(event.tokens)
        elif isinstance(event, ToolCallStarted):
            self.calls[event.candidate].append([event.name, ""])
        elif isinstance(event, ToolCallDelta):
            self.calls[event.candidate][event.index][1] += event.arguments
        elif isinstance(event, Finished):
            self.reasons[event.candidate] = event.reason


async def told(kernel, request, on_event=lambda said: None):
    said = Told(request.candidates)
    with await kernel.generate(request) as answer:
        async for event in answer:
            said.add(event)
            on_event(said)
    return said


def wish(model, schema, seed=0, **fields):
    text = f"Number {seed}: make up an example and write it down as JSON, nothing else."
    fields = {"max_tokens": 300, "sampling": GREEDY} | fields
    return evolve(ask(model, text), constraint=schema_of(schema), **fields)


def schema_of(schema):
    return Constraint("json_schema", json.dumps(schema))


async def check_schemas(kernel, model, seeds, temperature, together):
    """Ask for an answer to each schema; return how many finished. All that did must fit."""
    room = asyncio.Semaphore(together)

    async def one(seed):
        schema = random_schema(seed)
        sampling = SamplingRequest(temperature=temperature, seed=seed)
        async with room:
            said = await told(kernel, wish(model, schema, seed, sampling=sampling))
        if said.reasons == ["stop"]:
            jsonschema.validate(json.loads(said.texts[0]), schema)
        return said.reasons == ["stop"]

    return sum(await asyncio.gather(*map(one, seeds)))


@pytest.mark.timeout(300)
async def test_answers_fit_their_schemas(tmp_path, model):
    """Alone and four at once, likeliest and drawn."""
    name, folder = model
    async with serving(tmp_path, folder) as (kernel, _):
        finished = await check_schemas(kernel, name, range(1), temperature=0, together=1)
        finished += await check_schemas(kernel, name, range(1, 5), temperature=1, together=4)
        assert finished >= 4


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("temperature", "together"), [(0, 1), (0, 8), (1, 1), (1, 8)])
async def test_two_hundred_schemas(tmp_path, model, temperature, together):
    name, folder = model
    async with serving(tmp_path, folder) as (kernel, _):
        finished = await check_schemas(kernel, name, range(200), temperature, together)
        assert finished >= 160  # greedy, a small model counts for ever where a schema lets it


@pytest.mark.timeout(300)
async def test_candidates_survive_the_death_of_their_worker_in_the_middle_of_json(tmp_path, model):
    name, folder = model
    async with serving(tmp_path, folder) as (kernel, stage):
        killed = []

        def kill(said):
            if not killed and all(count >= 8 for count in said.tokens):
                killed.append(True)
                os.kill(stage.instance(name).pid, signal.SIGKILL)

        request = wish(name, PERSON, sampling=SamplingRequest(temperature=1, seed=3), candidates=3)
        said = await told(kernel, request, kill)
        assert stage.seen(WorkerCrashed)
        assert said.reasons == ["stop"] * 3
        for text in said.texts:
            jsonschema.validate(json.loads(text), PERSON)


async def test_calls_are_valid_whatever_the_model_would_say(tmp_path):
    tool = Tool(name="save_person", description="Save a person.", parameters=PERSON)
    prompt = ChatPrompt((Message("user", (TextPart("Save Bob, who is 42."),)),), tools=(tool,))
    async with serving(tmp_path, GGUF.parent.parent) as (kernel, _):
        request = wish(MODEL, PERSON, prompt=prompt, tool_choice=ToolChoice(mode="required"))
        one = evolve(request, constraint=None, parallel_tool_calls=False)
        said = await told(kernel, one)
        assert said.reasons == ["tool_calls"]
        [[name, arguments]] = said.calls[0]
        assert name == "save_person"
        jsonschema.validate(json.loads(arguments), PERSON)
        assert said.texts == [""]


async def test_a_paused_answer_goes_on_in_its_grammar(tmp_path):
    """The cache holds not even two of them, so one is put out and comes back."""
    config = "[models]\ncontext_length = 256\ncache_tokens = 256\n[queue]\nexpected_tokens = 16\n"
    long = {"type": "array", "items": {"enum": ["red", "green"]}, "minItems": 30, "maxItems": 30}
    async with serving(tmp_path, GGUF.parent.parent, config) as (kernel, _):
        asks = [wish(MODEL, long, seed, max_tokens=None) for seed in range(3)]
        answers = await asyncio.gather(*(told(kernel, one) for one in asks))
        assert sum(said.tokens[0] for said in answers) > 256
        for said in answers:
            assert said.reasons == ["stop"]
            jsonschema.validate(json.loads(said.texts[0]), long)


async def test_bombs_are_refused_while_a_stream_goes_on(tmp_path):
    """Fault 11."""
    async with serving(tmp_path, GGUF.parent.parent) as (kernel, stage):
        async with asyncio.TaskGroup() as group:
            told_all = group.create_task(told(kernel, ask(MODEL, "Count.", max_tokens=400)))
            for bomb in bombs():
                with pytest.raises(InvalidSchemaError) as caught:
                    await told(kernel, ask(MODEL, "hi", constraint=bomb))
                assert caught.value.status == 400
        assert told_all.result().reasons[0]
        assert not stage.seen(WorkerCrashed)


def bombs():
    """Yield 60 constraints that nobody can follow, or only at a price."""
    for n in range(12):
        loop = {f"a{i}": {"$ref": f"#/$defs/a{(i + 1) % (n + 1)}"} for i in range(n + 1)}
        yield Constraint("json_schema", json.dumps({"$ref": "#/$defs/a0", "$defs": loop}))
        deep = '{"items":' * (200 * (n + 1)) + "{}" + "}" * (200 * (n + 1))
        yield Constraint("json_schema", deep)
        yield Constraint("regex", "(" * (n + 1))
        yield Constraint("lark", f"start: {'a' * (n + 1)}")
        huge = {"type": "string", "maxLength": 2**64 - 1 - n}
        yield Constraint("json_schema", json.dumps(huge))
        choices = "|".join(f'"{i % 10}"' for i in range(60_000 - n))
        if n < 3:  # these must be killed
            yield Constraint("lark", f"start: {choices}")
