"""What a client asks of a model: prompts, sampling, limits."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen


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
