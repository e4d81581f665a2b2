"""What clients may send: one definition that parses, validates and documents a request.

A field that is not listed is ignored. A field marked :func:`~lmx_kernel.dialect.refused.refused`
is known to mean something LMX does not do: it may only carry a value that asks for nothing.
"""

from __future__ import annotations

from typing import Annotated, Literal

from attrs import frozen
from msgspec import Meta, Raw

from lmx_kernel.dialect.fields import (
    INT32_MAX,
    FunctionName,
    JsonObject,
    MinP,
    ModelName,
    Penalty,
    RepetitionPenalty,
    Seed,
    StopText,
    StopTexts,
    Temperature,
    TopLogprobs,
    TopP,
)
from lmx_kernel.dialect.refused import ABSENT, misplaced, refused

Role = Literal["system", "user", "assistant", "tool"]
# Checked later, to say which one it is.
FunctionType = Annotated[str, Meta(extra_json_schema={"enum": ["function"]})]
_EXACT = 2**53  # the largest number up to which floats are exact
# Some clients write whole numbers with a point; what follows it does not count.
Whole = (
    Annotated[int, Meta(ge=-INT32_MAX, le=INT32_MAX)]
    | Annotated[float, Meta(ge=-INT32_MAX, le=INT32_MAX)]
)
WholeSeed = Seed | Annotated[float, Meta(ge=-_EXACT, le=_EXACT)]
KeepAlive = float | Annotated[str, Meta(max_length=64)]
Think = bool | Literal["low", "medium", "high"]


@frozen(kw_only=True)
class Options:
    """How tokens are sampled, and how many. Options that are not listed are ignored.

    :ivar num_ctx: so many tokens of prompt and answer together at most; it does not load the model
        with a longer context.
    :ivar num_predict: so many tokens of the answer at most; 0 and less for no limit.
    :ivar lmx_reproducible: refuse the request where the same seed is not sure to give the same
        answer, bit for bit.
    """

    num_ctx: Whole | None = None
    num_predict: Whole | None = None
    temperature: Temperature | None = None
    top_k: Whole | None = None
    top_p: TopP | None = None
    min_p: MinP | None = None
    repeat_penalty: RepetitionPenalty | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    seed: WholeSeed | None = None
    lmx_reproducible: bool | None = None
    stop: StopText | StopTexts | None = None


@frozen(kw_only=True)
class CalledFunction:
    """``arguments`` is an object, or its JSON text."""

    name: str
    arguments: JsonObject | str | None = None


@frozen(kw_only=True)
class CallItem:
    """A call that the assistant made."""

    function: CalledFunction
    id: str | None = None


@frozen(kw_only=True)
class ChatMessage:
    """One turn of a conversation.

    :ivar thinking: what an assistant thought before it spoke.
    :ivar tool_calls: what an assistant called.
    :ivar tool_name: the name of the tool that returned the content.
    :ivar tool_call_id: the call that a tool's message answers; without it, the first call of that
        tool that is not answered yet.
    """

    role: Role
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[CallItem] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None
    images: Annotated[Raw, refused([])] = ABSENT


@frozen(kw_only=True)
class FunctionItem:
    """A function that the model may call.

    :ivar parameters: JSON schema of its arguments; without one it has none.
    """

    name: FunctionName
    description: str | None = None
    parameters: JsonObject | None = None


@frozen(kw_only=True)
class ToolItem:
    """A tool; only those of type ``function`` are served."""

    type: FunctionType = "function"
    function: FunctionItem


@frozen(kw_only=True)
class GenerationBody:
    """What conversations and prompts have in common. Null means the same as absent.

    :ivar stream: line by line, unless it is false.
    :ivar format: ``json``, or the JSON schema that the answer follows.
    :ivar think: whether the model thinks first, or how much; absent leaves it to the model.
    :ivar keep_alive: how long the model stays loaded after the answer: seconds, or a duration such
        as ``5m``; 0 unloads it, less than 0 keeps it loaded.
    """

    model: ModelName
    stream: bool | None = None
    format: str | JsonObject | None = None
    options: Options | None = None
    think: Think | None = None
    keep_alive: KeepAlive | None = None
    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None


@frozen(kw_only=True)
class ChatBody(GenerationBody):
    """The body of ``POST /api/chat``. Without messages the model is only loaded, or unloaded."""

    messages: Annotated[list[ChatMessage], Meta(max_length=4096)] | None = None
    tools: Annotated[list[ToolItem], Meta(max_length=1024)] | None = None
    prompt: Annotated[Raw, misplaced("/api/generate")] = ABSENT
    input: Annotated[Raw, misplaced("/v1/responses")] = ABSENT


@frozen(kw_only=True)
class GenerateBody(GenerationBody):
    """The body of ``POST /api/generate``. Without a prompt the model is only loaded, or unloaded.

    :ivar raw: continue the prompt as it is, without the model's chat template.
    :ivar context: ignored; conversations belong to ``/api/chat``.
    """

    prompt: str | None = None
    system: str | None = None
    raw: bool | None = None
    context: list[int] | None = None
    suffix: Annotated[Raw, refused("")] = ABSENT
    template: Annotated[Raw, refused("")] = ABSENT
    images: Annotated[Raw, refused([])] = ABSENT
    width: Annotated[Raw, refused(0)] = ABSENT
    height: Annotated[Raw, refused(0)] = ABSENT
    steps: Annotated[Raw, refused(0)] = ABSENT
    messages: Annotated[Raw, misplaced("/api/chat")] = ABSENT
    input: Annotated[Raw, misplaced("/v1/responses")] = ABSENT


@frozen(kw_only=True)
class EmbedBody:
    """The body of ``POST /api/embed``.

    :ivar dimensions: numbers in each vector: so many of the first ones, brought to length 1 again.
    :ivar truncate: ignored: a text that is longer than the model's context is refused.
    """

    model: ModelName
    input: str | list[str]
    truncate: bool | None = None
    dimensions: Annotated[int, Meta(ge=0, le=INT32_MAX)] | None = None
    keep_alive: KeepAlive | None = None


@frozen(kw_only=True)
class EmbeddingsBody:
    """The body of ``POST /api/embeddings``, the older form of ``/api/embed``."""

    model: ModelName
    prompt: str | None = None
    keep_alive: KeepAlive | None = None


@frozen(kw_only=True)
class NameBody:
    """A body that names a model.

    :ivar name: an older name of the field ``model``.
    """

    model: ModelName | None = None
    name: ModelName | None = None


@frozen(kw_only=True)
class PullBody(NameBody):
    """The body of ``POST /api/pull``.

    :ivar stream: progress line by line, unless it is false.
    :ivar insecure: ignored.
    """

    stream: bool | None = None
    insecure: bool | None = None
