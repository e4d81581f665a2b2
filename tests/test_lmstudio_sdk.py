"""LM Studio's websocket protocol by a daemon with fake models and the unmodified Python SDK."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx2
import lmstudio
import psutil
import pytest
import pytest_asyncio

from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import running_daemon, write_config, write_fake_models

PLUGINS = ("lmx_lmstudio_api.plugin", "lmx_openai_api.plugin", "lmx_hub.plugin")
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 8}},
    "required": ["city"],
    "additionalProperties": False,
}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
SCRIPTS = {
    "counter": FakeModel(answer_tokens=8),
    "loader": FakeModel(answer_tokens=8, load_s=0.5),
    "asker": FakeModel(says=f"A moment.{CALL}", replies=(("sunny in", "It is sunny."),)),
    "thinker": FakeModel(says="<think>Who is it?</think>Hello!"),
    "talker": FakeModel(says="one two END three"),
    "endless": FakeModel(tokens_per_s=50),
    "vectors": FakeModel(embeds=True),
    "doomed": FakeModel(crash_at=3, times=99),
    "slow": FakeModel(prefill_tokens_per_s=8, answer_tokens=8),
    "broken": FakeModel(load_error="its file is damaged"),
}
# Nothing listens there: a download waits for the hub.
CONFIG = '[hub]\nendpoint = "http://127.0.0.1:9"\nfolder = "{folder}"\n'


def weather(city: str) -> str:
    """Tell the weather."""
    return f"sunny in {city}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def daemon(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    write_fake_models(home, SCRIPTS)
    config = write_config(home, PLUGINS, CONFIG.format(folder=home / "downloads"))
    async with running_daemon(config) as running:
        running_log = home / "daemon.log"
        yield running.url, running_log
        lines = [json.loads(line) for line in running_log.read_text().splitlines()]
        assert not [line for line in lines if line["event"] == "lmstudio_frame_rejected"]


@pytest.fixture
def sdk(daemon) -> Iterator[lmstudio.Client]:
    with lmstudio.Client(daemon[0].removeprefix("http://")) as client:
        yield client


def is_count(text, tokens):
    numbers = list(map(int, text.split()))
    return numbers == [(numbers[0] + n) % 4096 for n in range(tokens)]


def test_models(sdk):
    listed = {model.model_key for model in sdk.list_downloaded_models()}
    assert listed == SCRIPTS.keys()
    assert [one.model_key for one in sdk.list_downloaded_models("embedding")] == ["vectors"]
    model = sdk.llm.model("counter")
    info = model.get_info()
    assert (info.identifier, info.context_length, info.format) == ("counter", 4096, "safetensors")
    assert model.get_context_length() == 4096
    assert "counter" in {one.identifier for one in sdk.list_loaded_models()}
    assert sdk.llm.model().identifier in {one.identifier for one in sdk.llm.list_loaded()}


def test_a_load_with_progress(sdk):
    shares = []
    model = sdk.llm.load_new_instance(
        "loader", "mine", on_load_progress=shares.append, config={"contextLength": 512}, ttl=99
    )
    assert shares == sorted(shares)
    assert (shares[-1], model.identifier) == (1, "mine")
    assert model.get_load_config().context_length == 512
    assert sdk.llm.model("mine").get_info().model_key == "loader"
    model.unload()
    assert "mine" not in {one.identifier for one in sdk.llm.list_loaded()}
    assert sdk.llm.model("loader").get_info().identifier == "loader"
    sdk.llm.unload("loader")


def test_answers(sdk):
    model = sdk.llm.model("counter")
    whole = model.respond("Hi")
    assert is_count(whole.content, 8)
    assert (whole.stats.stop_reason, whole.stats.predicted_tokens_count) == ("eosFound", 9)
    assert whole.model_info.model_key == "counter"
    shares = []
    stream = model.respond_stream("Hi", on_prompt_processing_progress=shares.append)
    parts = [fragment.content for fragment in stream]
    assert len(parts) > 1
    assert is_count("".join(parts), 8)
    assert (shares[0], shares[-1]) == (0, 1)
    cut = model.respond("Hi", config={"maxTokens": 3, "temperature": 0.5, "topKSampling": 9})
    assert cut.stats.stop_reason == "maxPredictedTokensReached"
    stopped = sdk.llm.model("talker").respond("Hi", config={"stopStrings": ["END"]})
    assert (stopped.content, stopped.stats.stop_reason) == ("one two ", "stopStringFound")
    assert is_count(model.complete("abc").content, 8)
    assert sdk.llm.model("thinker").respond("Hi").content == "<think>Who is it?</think>Hello!"


def test_a_schema_is_followed(sdk):
    found = sdk.llm.model("counter").respond("Hi", response_format=SCHEMA)
    assert found.parsed.keys() == {"city"}


def test_rounds_with_a_tool(sdk):
    messages = []
    done = sdk.llm.model("asker").act("How is it?", [weather], on_message=messages.append)
    assert done.rounds == 2
    asked, result, answer = messages
    assert asked.content[1].tool_call_request.arguments == {"city": "Rome"}
    assert json.loads(result.content[0].content) == "sunny in Rome"
    assert answer.content[0].text == "It is sunny."


def test_tokens_templates_and_vectors(sdk):
    model = sdk.llm.model("counter")
    assert model.tokenize(["a", "bc"]) == [[*b"a"], [*b"bc"]]
    assert model.count_tokens("hello") == 5
    chat = lmstudio.Chat("Be brief.")
    chat.add_user_message("Hi")
    assert model.apply_prompt_template(chat) == "system: Be brief.\nuser: Hi\nassistant:"
    vectors = sdk.embedding.model("vectors")
    assert len(vectors.embed("hi")) == 2
    assert len(vectors.embed(["hi"] * 300)) == 300
    assert vectors.count_tokens("four") == 4


def test_an_answer_that_is_cancelled(sdk):
    stream = sdk.llm.model("endless").respond_stream("Hi")
    for _ in stream:
        stream.cancel()
    assert stream.result().stats.stop_reason == "userStopped"


def test_errors_say_why(sdk):
    for call in (sdk.llm.model, sdk.llm.load_new_instance):
        with pytest.raises(lmstudio.LMStudioModelNotFoundError, match="nobody"):
            call("nobody")
    with pytest.raises(lmstudio.LMStudioServerError, match="damaged"):
        sdk.llm.load_new_instance("broken")
    with pytest.raises(lmstudio.LMStudioServerError, match="crashed"):
        sdk.llm.model("doomed").respond("Hi")
    with pytest.raises(lmstudio.LMStudioServerError, match="too long"):
        sdk.llm.model("counter").respond("x" * 5000)
    image = sdk.prepare_image(b"\x89PNG", "a.png")
    chat = lmstudio.Chat()
    chat.add_user_message("What is it?", images=[image])
    with pytest.raises(lmstudio.LMStudioServerError, match="text only"):
        sdk.llm.model("counter").respond(chat)


def test_a_worker_that_dies_in_mid_answer_costs_nothing(sdk, daemon):
    stream = sdk.llm.model("endless").respond_stream("Hi")
    fragments = iter(stream)
    parts = [next(fragments).content]
    status = httpx2.get(f"{daemon[0]}/health/status").json()
    (pid,) = [one["pid"] for one in status["models"] if one["id"] == "endless"]
    psutil.Process(pid).kill()
    while len(parts) < 60:
        parts.append(next(fragments).content)
    stream.cancel()
    assert is_count("".join(parts), 60)


def test_a_model_of_the_hub_is_downloaded(sdk):
    (found,) = sdk.repository.search_models("acme/tiny")
    (option,) = found.get_download_options()
    assert option.info.download_identifier == "acme/tiny"


@pytest.mark.full
def test_a_long_silence_is_survived(sdk):
    # The SDK gives up after a minute without a message.
    answer = sdk.llm.model("slow").respond("x" * (75 * 8))
    assert is_count(answer.content, 8)
