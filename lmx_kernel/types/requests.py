"""Requests: prompts, sampling, limits, tools and constraints."""

from __future__ import annotations

from typing import Any

from attrs import field, fields, frozen

from lmx_kernel.types.shares import DEFAULT_TERMS, Priority, Terms


@frozen
class TextPart:
    """A text in a message."""

    text: str


@frozen
class ToolCall:
    """A tool call of an assistant. ``arguments`` is JSON text, as the model wrote it."""

    id: str
    name: str
    arguments: str


@frozen
class Message:
    """One turn of a conversation.

    :param role: one of system, user, assistant, tool.
    :param tool_calls: the tool calls of an assistant.
    :param tool_call_id: the call that a tool's message answers.
    :param name: the name of the tool that answers, or of the author.
    :param reasoning: the reasoning of an assistant before its answer.
    """

    role: str
    parts: tuple[TextPart, ...]
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    reasoning: str | None = None

    @property
    def text(self) -> str:
        """The text of all parts."""
        return "".join(part.text for part in self.parts)


@frozen(kw_only=True)
class Tool:
    """A function that the model may call.

    :param parameters: JSON schema of its arguments.
    :param strict: whether a schema that cannot be followed exactly is an error.
    :param hidden: the model may call it, but the template does not present it: the model learns of
        it from a message, so that a tool that is added later leaves the prompt's beginning alone.
    """

    name: str
    description: str = ""
    parameters: dict[str, Any] = field(factory=dict)
    strict: bool = False
    hidden: bool = False


@frozen(kw_only=True)
class ToolChoice:
    """Whether the model calls tools.

    :param mode: none, auto (the model decides), or required (at least one call).
    :param names: the tools that it may call; empty for all.
    """

    mode: str = "auto"
    names: tuple[str, ...] = ()


@frozen
class Constraint:
    """Structured output: what the text of an answer, without its reasoning, must match.

    :param kind: one of json_object, json_schema, regex, lark.
    :param source: the schema (JSON text), the pattern, or the grammar; "" for json_object.
    :param param: the field of the client's request that it is from, for errors.
    """

    kind: str
    source: str = ""
    param: str | None = field(default=None, eq=False)


@frozen
class ChatPrompt:
    """Messages that the model's own chat template turns into text.

    :param tools: the tools that the model may call; the template presents those not hidden.
    :param options: further variables for the template, such as ``enable_thinking``.
    """

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    options: dict[str, Any] = field(factory=dict)


@frozen
class TextPrompt:
    """Text that is continued as it is.

    :param is_rendered: it is what a chat template wrote: the texts of control tokens in it are read
        as these tokens, and no begin token is put before it.
    """

    text: str
    is_rendered: bool = False


@frozen
class TokenPrompt:
    """Tokens that are continued as they are."""

    tokens: tuple[int, ...]


EmbeddingInput = TextPrompt | TokenPrompt


@frozen
class EmbeddingPrompt:
    """Texts to embed: each becomes a vector, see :class:`Embedded`."""

    inputs: tuple[EmbeddingInput, ...]


Prompt = ChatPrompt | TextPrompt | TokenPrompt | EmbeddingPrompt


@frozen(kw_only=True)
class Sampling:
    """How the next token is sampled.

    :param temperature: 0 takes the likeliest token.
    :param top_k: keep the k likeliest tokens; 0 keeps all.
    :param top_p: keep the likeliest tokens whose probabilities add up to this.
    :param min_p: drop tokens less likely than this share of the likeliest one's probability.
    :param repetition_penalty: divide (multiply, if negative) the logits of seen tokens by this.
    :param presence_penalty: subtract this from the logits of seen tokens.
    :param frequency_penalty: subtract this times their count from the logits of seen tokens.
    :param seed: makes sampling repeatable; None draws a random one.
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


SAMPLING_FIELDS = tuple(one.name for one in fields(Sampling))


@frozen(kw_only=True)
class SamplingRequest:
    """Sampling as far as somebody asked for it: the fields of :class:`Sampling`, each None where
    nobody did. The kernel sets these before an engine gets the request.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    logit_bias: dict[int, float] | None = None

    @property
    def given(self) -> dict[str, Any]:
        """The fields that were asked for, by name."""
        values = ((name, getattr(self, name)) for name in SAMPLING_FIELDS)
        return {name: value for name, value in values if value is not None}

    def complete(self, seed: int | None = None) -> Sampling:
        """Return the sampling, with LMX's own values where nothing was asked for.

        :param seed: replaces that of the request, unless it is None.
        """
        fields = self.given if seed is None else self.given | {"seed": seed}
        return Sampling(**fields)


@frozen(kw_only=True)
class GenerationRequest:
    """A request to a model.

    :param model: the name as the client wrote it.
    :param sampling: what the client asked for; the settings of the model complete it.
    :param max_tokens: for each candidate; None means what the model's settings say, or up to the
        context length, and 0 that the prompt is only counted: then it may be longer than the
        context.
    :param context_tokens: the most tokens of the prompt and one answer together; None for all that
        the model's context holds.
    :param stop: stop strings, which end an answer and are not part of it; empty for those of the
        model's settings.
    :param candidates: how many answers to the same prompt.
    :param logprobs: None for none; else how many alternatives beside the sampled token.
    :param tool_choice: whether the model calls tools, and which of the prompt's tools it may.
    :param parallel_tool_calls: whether one answer may have several calls.
    :param constraint: structured output; None for free text.
    :param reasoning_tokens: the most tokens of reasoning, after which the model must answer; None
        for the limit of the model's settings, or none.
    :param logits_processors: plugins that change the logits of each token, by name in the group
        ``lmx.logits``, with their options; in this order.
    :param prediction: what the answer will probably be, to make it come sooner; it changes nothing
        else. "" where nobody knows.
    :param draft_model: the model that drafts for this request, by name; it changes nothing but how
        soon the answer comes. "" for what the settings of the model say.
    :param said: the tokens that the only candidate has said already, before a restart of the
        daemon, say: it goes on after them, and only what follows is in the answer's events. The
        same seed must be given for the same text.
    :param reproducible: refuse the request where the answer is not sure to be the same, bit for
        bit, each time that it is asked for with this seed.
    :param returns_prompt: the worker returns the prompt as the model would read it; only where it
        is just counted.
    :param caller: callers take turns in a model's queue. The kernel sets it for what comes by HTTP:
        to the name of the API key, or without one to a name of the HTTP request.
    :param cache_space: what was computed for a prompt serves only requests of the same space. The
        kernel sets it for what comes by HTTP: to the name of the API key, or "" without one.
    :param terms: those of the caller. The kernel sets them for what comes by HTTP: to those of the
        API key.
    :param priority: the highest that the client asks for. The kernel lowers it to that of the
        terms.
    """

    model: str
    prompt: Prompt
    sampling: SamplingRequest = SamplingRequest()
    max_tokens: int | None = None
    context_tokens: int | None = None
    stop: tuple[str, ...] = ()
    candidates: int = 1
    logprobs: int | None = None
    tool_choice: ToolChoice = ToolChoice()
    parallel_tool_calls: bool = True
    constraint: Constraint | None = None
    reasoning_tokens: int | None = None
    logits_processors: dict[str, dict[str, Any]] = field(factory=dict)
    prediction: str = ""
    draft_model: str = ""
    said: tuple[int, ...] = ()
    reproducible: bool = False
    returns_prompt: bool = False
    caller: str = ""
    cache_space: str = ""
    terms: Terms = DEFAULT_TERMS
    priority: Priority = Priority.HIGH

    @property
    def key(self) -> str:
        """The name of the API key that it came with; "" for none. No key's name begins with #."""
        return "" if self.caller.startswith("#") else self.caller

    def context_length(self, most: int) -> int:
        """Return the tokens that the prompt and one answer may have together.

        :param most: the context length that the model was loaded with.
        """
        return most if self.context_tokens is None else min(most, self.context_tokens)
