"""The words of LMX: what a request is, what an answer is made of, what a model is.

Neutral to every API dialect and every engine. All of them are frozen and cross process borders as
they are (see :mod:`lmx_kernel.wire`). Imports nothing but attrs.
"""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Any

from attrs import field, frozen

# --- requests ------------------------------------------------------------------------------------


@frozen
class TextPart:
    """A piece of text in a message."""

    text: str


@frozen
class ToolCall:
    """A call that an assistant made. ``arguments`` is JSON text, as the model wrote it."""

    id: str
    name: str
    arguments: str


@frozen
class Message:
    """One turn of a conversation.

    :param role: one of system, user, assistant, tool.
    :param tool_calls: what an assistant called.
    :param tool_call_id: the call that a tool's message answers.
    :param name: of the tool that answers, or of who speaks.
    :param reasoning: what an assistant thought before it spoke.
    """

    role: str
    parts: tuple[TextPart, ...]
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    reasoning: str | None = None


@frozen(kw_only=True)
class Tool:
    """A function that the model may call.

    :param parameters: JSON schema of its arguments.
    :param strict: whether a schema that cannot be followed exactly is an error.
    """

    name: str
    description: str = ""
    parameters: dict[str, Any] = field(factory=dict)
    strict: bool = False


@frozen(kw_only=True)
class ToolChoice:
    """Whether the model calls.

    :param mode: none, auto (as it likes), or required (at least one call).
    :param names: of the tools that it may call; empty for all.
    """

    mode: str = "auto"
    names: tuple[str, ...] = ()


@frozen
class Constraint:
    """What the visible text of an answer must look like.

    :param kind: one of json_object, json_schema, regex, lark.
    :param source: the schema (JSON text), the pattern, or the grammar; "" for json_object.
    :param param: the field of the client's request that it came in, for errors.
    """

    kind: str
    source: str = ""
    param: str | None = field(default=None, eq=False)


@frozen
class ChatPrompt:
    """Messages that the model's own chat template turns into text.

    :param tools: what the template tells the model it may call.
    :param options: more names for the template, such as ``enable_thinking``.
    """

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    options: dict[str, Any] = field(factory=dict)


@frozen
class TextPrompt:
    """Text that is continued as it is."""

    text: str


@frozen
class TokenPrompt:
    """Tokens that are continued as they are."""

    tokens: tuple[int, ...]


EmbeddingInput = TextPrompt | TokenPrompt


@frozen
class EmbeddingPrompt:
    """Texts that are not continued: each becomes a vector, see :class:`Embedded`."""

    inputs: tuple[EmbeddingInput, ...]


Prompt = ChatPrompt | TextPrompt | TokenPrompt | EmbeddingPrompt


@frozen(kw_only=True)
class Sampling:
    """How the next token is chosen.

    :param temperature: 0 takes the likeliest token.
    :param top_k: keep the k likeliest tokens; 0 keeps all.
    :param top_p: keep the likeliest tokens whose probabilities add up to this.
    :param min_p: drop tokens less likely than this share of the likeliest one's probability.
    :param repetition_penalty: divide (multiply, if negative) the logits of seen tokens by this.
    :param presence_penalty: subtract this from the logits of seen tokens.
    :param frequency_penalty: subtract this times their count from the logits of seen tokens.
    :param seed: fixes the draws; a random one is taken where it is None.
    :param logit_bias: token id -> number added to its logit.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    logit_bias: dict[int, float] = field(factory=dict)


@frozen(kw_only=True)
class GenerationRequest:
    """What a client asks of a model.

    :param model: the name as the client wrote it.
    :param max_tokens: per candidate; None means up to the context length, and 0 that the prompt is
        only counted: then it may be longer than the context.
    :param stop: texts that end an answer; they are not part of it.
    :param candidates: how many answers to the same prompt.
    :param logprobs: None for none; else how many alternatives beside the chosen token.
    :param tool_choice: whether, and what, the model calls of the prompt's tools.
    :param parallel_tool_calls: whether one answer may hold several calls.
    :param constraint: what the visible text must look like; None for anything.
    :param reasoning_tokens: after so many tokens of thought the model must speak; None for no end.
    """

    model: str
    prompt: Prompt
    sampling: Sampling = Sampling()
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    candidates: int = 1
    logprobs: int | None = None
    tool_choice: ToolChoice = ToolChoice()
    parallel_tool_calls: bool = True
    constraint: Constraint | None = None
    reasoning_tokens: int | None = None


# --- answers -------------------------------------------------------------------------------------


@frozen
class TokenLogprob:
    """A token and the natural logarithm of its probability under the model."""

    token: int
    text: bytes
    logprob: float


@frozen
class Logprobs:
    """The chosen token and, likeliest first, the alternatives that were asked for."""

    chosen: TokenLogprob
    top: tuple[TokenLogprob, ...]


@frozen
class Admitted:
    """The request passed every check that can refuse it. Always the first event."""

    prompt_tokens: int


@frozen
class PromptProgress:
    """How much of a candidate's prompt is computed; ``cached`` tokens needed no work."""

    candidate: int
    processed: int
    total: int
    cached: int


@frozen
class TextDelta:
    """More of a candidate's text, with the tokens it came from.

    The text may be empty (a character or a possible stop text is not complete yet), and tokens may
    be empty (held text was released): tokens are counted once, in order.
    """

    candidate: int
    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[Logprobs, ...] = ()


@frozen
class ReasoningDelta:
    """More of what a candidate thinks before it speaks. Its tokens are in a :class:`TextDelta`."""

    candidate: int
    text: str


@frozen
class ToolCallStarted:
    """A candidate begins to call a tool; ``index`` counts the calls of one candidate from 0."""

    candidate: int
    index: int
    id: str
    name: str


@frozen
class ToolCallDelta:
    """More of the JSON text of a call's arguments, as the model writes it."""

    candidate: int
    index: int
    arguments: str


@frozen
class Finished:
    """A candidate is complete. ``reason`` is one of stop, length, tool_calls.

    :param reasoning_tokens: how many of its tokens were thought.
    """

    candidate: int
    reason: str
    reasoning_tokens: int = 0


@frozen
class Embedded:
    """The vectors of an :class:`EmbeddingPrompt`, in its order, as the machine's float32."""

    candidate: int
    vectors: tuple[bytes, ...]


Event = (
    Admitted
    | PromptProgress
    | TextDelta
    | ReasoningDelta
    | ToolCallStarted
    | ToolCallDelta
    | Embedded
    | Finished
)


@frozen(kw_only=True)
class Usage:
    """What an answer cost. Tokens are counted over all candidates, the prompt once."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int = 0
    queue_s: float
    first_token_s: float | None
    total_s: float


@frozen(kw_only=True)
class Embeddings:
    """Texts as vectors of length 1, in the order in which they were given.

    :param model: the catalogue id of the model that made them.
    :param prompt_tokens: of all texts together.
    """

    model: str
    vectors: tuple[array[float], ...]
    prompt_tokens: int


# --- models --------------------------------------------------------------------------------------


@frozen
class Location:
    """A place on disk that may hold a model.

    :param name: what the model would be called, `publisher/name` or `name`.
    :param folder: the folder itself.
    :param files: the file names in it.
    """

    name: str
    folder: Path
    files: tuple[str, ...]


@frozen(kw_only=True)
class ModelCard:
    """What is known of a model without loading it.

    :param backend: the backend that recognised it.
    :param path: the file or folder to load.
    :param size_bytes: of its weights on disk.
    :param context_length: in tokens, as trained.
    :param files: all that belongs to this model alone; deleting the model deletes them.
    :param problem: why it cannot be loaded; None if nothing is known to be wrong.
    """

    id: str
    backend: str
    path: Path
    format: str
    architecture: str
    size_bytes: int
    context_length: int
    quantization: str | None = None
    capabilities: frozenset[str] = frozenset()
    files: tuple[Path, ...] = ()
    problem: str | None = None


@frozen(kw_only=True)
class LoadOptions:
    """How a model is loaded.

    :param context_length: tokens that one sequence may hold.
    :param parallel: sequences that may run at once.
    :param cache_tokens: tokens of all sequences and kept prefixes together.
    """

    context_length: int
    parallel: int
    cache_tokens: int


@frozen(kw_only=True)
class LoadWish:
    """How somebody wants a model to be loaded, beside what the config says.

    :param context_length: tokens that one request may use; None leaves it to the config.
    :param parallel: requests that run at once; None leaves it to the config.
    :param ttl_s: unload it after so many seconds without a request; None never does.
    :param pinned: never unload it to make room for another.
    """

    context_length: int | None = None
    parallel: int | None = None
    ttl_s: float | None = None
    pinned: bool = False


@frozen(kw_only=True)
class MemoryEstimate:
    """What a loaded model will take, in bytes."""

    weights_bytes: int
    cache_bytes: int
    overhead_bytes: int

    @property
    def total_bytes(self) -> int:
        """The sum of the parts."""
        return self.weights_bytes + self.cache_bytes + self.overhead_bytes


@frozen(kw_only=True)
class Admission:
    """Whether a model could be loaded now.

    :param available_bytes: as things are, without unloading anything.
    :param unloads: models that would be unloaded to make room, in this order.
    :param problem: why it cannot be loaded; None if it can.
    """

    model: str
    options: LoadOptions
    estimate: MemoryEstimate
    available_bytes: int
    budget_bytes: int
    unloads: tuple[str, ...] = ()
    problem: str | None = None


@frozen(kw_only=True)
class EngineSpec:
    """What a worker needs to open an engine: the card, the options, the backend's settings.

    :param memory_bytes: what the ledger holds for it; 0 where nothing is reserved.
    """

    card: ModelCard
    options: LoadOptions
    settings: dict[str, Any] = field(factory=dict)
    memory_bytes: int = 0


@frozen(kw_only=True)
class EngineLimits:
    """What an open engine can hold; same meaning as in :class:`LoadOptions`."""

    context_length: int
    max_sequences: int
    cache_tokens: int


# --- routing -------------------------------------------------------------------------------------


@frozen
class Skipped:
    """A model that a request did not go to, and why."""

    model: str
    reason: str


@frozen
class Decision:
    """A router's choice.

    :param models: names of models, best first: the first that can take the request gets it.
    :param reason: why these, in a few words.
    :param rule: what the choice rests on, where the router has a name for it.
    :param strict: only the first will do: its own error is answered if it cannot take the request.
    :param skipped: models that the router itself passed over.
    :param retry_after_s: when to try again if nobody takes the request, where the reasons of
        ``skipped`` pass with time; None where they do not.
    """

    models: tuple[str, ...]
    reason: str
    rule: str = ""
    strict: bool = False
    skipped: tuple[Skipped, ...] = ()
    retry_after_s: int | None = None


@frozen(kw_only=True)
class Route:
    """Where a request went, and why.

    :param asked: the model's name as the client wrote it.
    :param model: the id of the model that got it; "" if none could take it.
    :param router: whose decision it was; "" where the request's own word counted.
    :param at: when, in seconds since the epoch.
    """

    asked: str
    model: str
    router: str = ""
    rule: str = ""
    reason: str = ""
    skipped: tuple[Skipped, ...] = ()
    at: float = 0.0
