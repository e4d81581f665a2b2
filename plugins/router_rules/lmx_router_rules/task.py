"""What a request is about, from the request alone: the same request always gives the same task.

What a request carries comes first, since a model must be able to take it: texts to embed, images,
tools, a form that the answer must have, and length, in this order. Else its text decides: the words
and phrases of :mod:`lmx_router_rules.words`, and how much of it looks like code or sums. Each is a
vote for a task; the most votes win, and a text that says little is chat.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Literal, get_args

from lmx_kernel.routing import estimate_tokens
from lmx_kernel.types import (
    ChatPrompt,
    EmbeddingPrompt,
    GenerationRequest,
    Message,
    TextPart,
    TextPrompt,
)
from lmx_router_rules.words import LANGUAGES, PHRASES, WORDS, Textual

Task = Literal[
    "chat",
    "code",
    "reasoning",
    "extraction",
    "translation",
    "tools",
    "long_context",
    "vision",
    "embedding",
]
TASKS: tuple[Task, ...] = get_args(Task)

HEAD_CHARS, TAIL_CHARS = 900, 400  # of the last message: what is wanted stands at either end
SYSTEM_CHARS = 500
SHORT_CHARS = 500  # a message that may speak of the one before
MIN_WISH_CHARS = 12
DATA_SHARE = 0.5  # of a word's vote that stands in what the wish is about
CHAT_VOTES = 1.3  # what a text must say to be anything else

_WORD = re.compile(r"[^\W\d_]+")
_DATA = re.compile(r'[:\n"“„«「]')
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_SUM = re.compile(r"\d\s*[-+*/^=×÷]\s*\d|\d\s?%|\b[a-z]\s*=\s*|\b[a-z]\^\d|\d!|\d\s?(?:[cmk]?m|kg|mph)\b|\b\d*x\s*[-+^=<>]")
_IDENTIFIER = re.compile(r"\b[a-z]+(?:_[a-z]+|[A-Z][A-Za-z]+)\b(?!\"?\s*:)|[a-z](?:Error|Exception)\b")
_FUNCTION = re.compile(r"\b[fgh]\([a-z0-9]\)|\$\d")
_RECORD = re.compile(r'[{,]\s*"\w+"\s*:')
_ANY_LANGUAGE = "|".join(LANGUAGES.split())
_LANGUAGE = re.compile(rf"\b(?:into|to|from)\b[^.:\n]{{0,40}}\b(?:{_ANY_LANGUAGE})\b")
_QUOTED = re.compile(
    rf"[\"'”»]\s*in (?:{_ANY_LANGUAGE})\b|\bin (?:{_ANY_LANGUAGE})\s*[:\"'“«]", re.IGNORECASE
)
_CODE = re.compile(
    r"[;{}]\s*$"
    r"|^\s*(?:def|class|import|from|return|for|while|if|func|fn|let|const|var|public|#include)\b.*"
    r"[:;({\"'<]"
    r"|^\s*(?:from [\w.]+ )?import \w+|\bdef \w+\(|\breturn \w+[(.]|\w\(\)|=>|->|::|[=!]=|&&|\|\||\+=|</?[a-z]+>|\w\[\w+\]|\w\.\w+\(|[a-z]_[a-z]+\(|`[^`\n]+`"
    r"|^(?:@@|[-+]{3} )|\b(?:select|insert into|update)\b.+\b(?:from|values|set)\b",
    re.MULTILINE | re.IGNORECASE,
)


def classify(request: GenerationRequest, long_tokens: int = 6000) -> Task:
    """Return the task of a request.

    :param long_tokens: prompts of so many tokens, as estimated, are long.
    """
    prompt = request.prompt
    if isinstance(prompt, EmbeddingPrompt):
        return "embedding"
    if has_images(request):
        return "vision"
    if has_tools(request):
        return "tools"
    if request.constraint is not None:
        return "extraction"
    if estimate_tokens(prompt) >= long_tokens:
        return "long_context"
    if isinstance(prompt, ChatPrompt):
        return _of_chat(prompt)
    return _of_text(prompt.text) if isinstance(prompt, TextPrompt) else "chat"


def has_images(request: GenerationRequest) -> bool:
    """Return whether a message has a part that is not text."""
    prompt = request.prompt
    return isinstance(prompt, ChatPrompt) and any(
        not isinstance(part, TextPart) for turn in prompt.messages for part in turn.parts
    )


def has_tools(request: GenerationRequest) -> bool:
    """Return whether the model may call tools."""
    prompt = request.prompt
    return (
        isinstance(prompt, ChatPrompt)
        and bool(prompt.tools)
        and request.tool_choice.mode != "none"
    )


def text_of(turn: Message) -> str:
    """Return the text of a message."""
    texts = [part.text for part in turn.parts if isinstance(part, TextPart)]
    return texts[0] if len(texts) == 1 else "\n".join(texts)


# --- text ---


def _of_chat(prompt: ChatPrompt) -> Task:
    asked, before, system = "", "", ""
    for turn in prompt.messages:
        if turn.role == "user":
            asked = text_of(turn)
        elif turn.role == "assistant":
            before = text_of(turn)
        else:
            system = system or text_of(turn)
    return _of_text(asked, before, system)


def _of_text(asked: str, before: str = "", system: str = "") -> Task:
    votes = _votes(asked)
    if system:
        for task, vote in _word_votes(system[:SYSTEM_CHARS].lower()).items():
            votes[task] += vote
    if len(asked) <= SHORT_CHARS and "```" in before:
        votes["code"] += 4
    return max(votes, key=lambda task: votes[task])


def _votes(asked: str) -> dict[Textual, float]:
    window = asked
    if len(asked) > HEAD_CHARS + TAIL_CHARS:
        window = f"{asked[:HEAD_CHARS]}\n{asked[-TAIL_CHARS:]}"
    wish, data = _split(window.lower())
    votes = _word_votes(wish)
    for task, vote in _word_votes(data).items():
        votes[task] += vote * DATA_SHARE
    code = 2.5 * ("```" in asked) + 1.5 * min(len(_CODE.findall(window)), 4)
    votes["chat"] += CHAT_VOTES
    votes["code"] += code + bool(_IDENTIFIER.search(window))
    votes["extraction"] += 2 * bool(_RECORD.search(window)) + bool(data and votes["extraction"])
    votes["translation"] += 2 * bool(_LANGUAGE.search(wish)) + 3 * bool(_QUOTED.search(window))
    if code > 2:
        votes["reasoning"] /= 2
    else:
        sums = min(len(_SUM.findall(window)), 3) + min(len(_FUNCTION.findall(window)), 2)
        votes["reasoning"] += sums + min(len(_NUMBER.findall(window)), 4) * 0.4
    return votes


def _split(text: str) -> tuple[str, str]:
    """Return what seems to be the wish, and what it seems to be about: a wish stands before a
    colon, a quotation or a line's end, or in the last line.
    """
    mark = _DATA.search(text, MIN_WISH_CHARS)
    if mark is None:
        return text, ""
    wish, data = text[: mark.start()], text[mark.start() :]
    data, line_end, last = data.rpartition("\n")
    return (f"{wish}\n{last}", data) if line_end else (wish, last)


def _word_votes(text: str) -> defaultdict[Textual, float]:
    votes: defaultdict[Textual, float] = defaultdict(float)
    for word in set(_WORD.findall(text)):
        for task, weight in _lookup(word):
            votes[task] += weight
    for phrase, task, weight in _PHRASES:
        if phrase in text:
            votes[task] += weight
    return votes


def _lookup(word: str) -> Iterator[tuple[Textual, float]]:
    yield from _EXACT.get(word, ())
    for length in _STEM_LENGTHS:
        if found := _STEMS.get(word[:length]):
            yield from found
            break


def _tables() -> tuple[dict[str, list[tuple[Textual, float]]], ...]:
    exact: dict[str, list[tuple[Textual, float]]] = defaultdict(list)
    stems: dict[str, list[tuple[Textual, float]]] = defaultdict(list)
    for task, by_weight in WORDS.items():
        for weight, words in by_weight.items():
            for word in sorted(set(words.split())):
                table = stems if word.endswith("*") else exact
                table[word.removesuffix("*")].append((task, weight))
    return dict(exact), dict(stems)


_EXACT, _STEMS = _tables()
_STEM_LENGTHS = sorted({len(stem) for stem in _STEMS}, reverse=True)
_PHRASES: list[tuple[str, Textual, float]] = [
    (phrase, task, weight)
    for task, by_weight in PHRASES.items()
    for weight, phrases in by_weight.items()
    for phrase in phrases
]
