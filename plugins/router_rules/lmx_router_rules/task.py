"""The task of a request, from the request alone: the same request always has the same task.

What a request carries comes first, since a model must be able to take it: texts to embed, images,
tools, a form that the answer must have, and length, in this order. Else its text decides: the words
and phrases of ``keywords.toml``, and how much of it looks like code or sums. Each is a vote for a
task; the task with the most votes wins, and a text with few votes is chat.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import cast, get_args

from attrs import define

from lmx_kernel.routing.decide import estimate_tokens
from lmx_kernel.types import (
    ChatPrompt,
    EmbeddingPrompt,
    GenerationRequest,
    Message,
    Prompt,
    TextPart,
    TextPrompt,
)
from lmx_router_rules.keywords import Keyword, load_keywords
from lmx_router_rules.settings import Task

TASKS: tuple[Task, ...] = get_args(Task)

HEAD_CHARS, TAIL_CHARS = 900, 400  # of the last message: what is wanted stands at either end
SYSTEM_CHARS, SYSTEM_SHARE = 500, 0.5
FOLLOW_UP_CHARS, FOLLOW_UP_VOTES = 120, 2.5  # a later turn so short, that says so little itself,
OPENING_SHARE = 0.75  # is about what the conversation began with
SHORT_CHARS = 500  # a message that may speak of the one before
MIN_WISH_CHARS = 12
DATA_SHARE = 0.5  # of a vote from what the wish is about
CHAT_VOTES = 1.2  # what a text must say to be anything else

_DATA = re.compile(r'[:\n"“„«「]')
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_IDENTIFIER = re.compile(
    r"[a-z](?:_[a-z]+|[A-Z][A-Za-z]+)\b(?![\"\s]*:)|[a-z](?:Error|Exception)\b"
)
_INTO = re.compile(
    r"\b(?:into|to|from)\b[^.:\n]{0,40}$"
    r"|\b(?:ins|al|in het|naar het|na|на)\s(?:\w+\s)?$"
)
_AS = re.compile(r"\b(?:auf|en|em|po)\s$")  # "into", or only "in"
_VERSION = re.compile(r" (?:version|translation|word|character|equivalent|phrase)s?\b")
_IN = re.compile(r"[\"'”»]?\s*\bin $")


def classify(request: GenerationRequest, long_tokens: int = 6000) -> Task:
    """Return the task of a request.

    :param long_tokens: prompts of so many tokens, as estimated, are long.
    """
    prompt = request.prompt
    carried: dict[Task, bool] = {
        "embedding": isinstance(prompt, EmbeddingPrompt),
        "vision": has_images(request),
        "tools": has_tools(request),
        "extraction": request.constraint is not None,
        "long_context": estimate_tokens(prompt) >= long_tokens,
    }
    return next((task for task, is_so in carried.items() if is_so), None) or _of_prompt(prompt)


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
        isinstance(prompt, ChatPrompt) and bool(prompt.tools) and request.tool_choice.mode != "none"
    )


def text_of(turn: Message) -> str:
    """Return the text of a message."""
    texts = [part.text for part in turn.parts if isinstance(part, TextPart)]
    return texts[0] if len(texts) == 1 else "\n".join(texts)


# --- text ---


def _of_prompt(prompt: Prompt) -> Task:
    if isinstance(prompt, ChatPrompt):
        return _of_chat(prompt)
    return _of_text(prompt.text) if isinstance(prompt, TextPrompt) else "chat"


def _of_chat(prompt: ChatPrompt) -> Task:
    said: defaultdict[str, list[Message]] = defaultdict(list)
    for turn in prompt.messages:
        said[turn.role].append(turn)
    *earlier, asked = said["user"] or [Message("user", ())]
    return _of_text(
        text_of(asked),
        answer=_text_of_first(said["assistant"][-1:]),
        system=_text_of_first(said["system"]),
        opening=_text_of_first(earlier),
    )


def _text_of_first(turns: Sequence[Message]) -> str:
    return text_of(turns[0]) if turns else ""


def _of_text(asked: str, answer: str = "", system: str = "", opening: str = "") -> Task:
    votes = _votes(asked)
    says_little = len(asked) <= FOLLOW_UP_CHARS and max(votes.values()) < FOLLOW_UP_VOTES
    if system:
        _add(votes, _count(system[:SYSTEM_CHARS].lower()).votes, SYSTEM_SHARE)
    if opening and says_little:
        _add(votes, _votes(opening), OPENING_SHARE)
    if len(asked) <= SHORT_CHARS and "```" in answer:
        votes["code"] += 4
    return cast("Task", max(votes, key=lambda task: votes[task]))


def _add(votes: dict[str, float], more: Mapping[str, float], share: float) -> None:
    for task, vote in more.items():
        votes[task] += vote * share


def _votes(asked: str) -> dict[str, float]:
    window = asked
    if len(asked) > HEAD_CHARS + TAIL_CHARS:
        window = f"{asked[:HEAD_CHARS]}\n{asked[-TAIL_CHARS:]}"
    text, numbers = _NUMBER.subn("0", window.lower())
    count = _count(text)
    votes = count.votes
    code = 1.5 * min(count.code_marks, 4)
    votes["chat"] += CHAT_VOTES
    votes["code"] += code + bool(_IDENTIFIER.search(window))
    votes["extraction"] += count.has_data and votes["extraction"] >= 2
    if code > 2:
        votes["reasoning"] /= 2
    else:
        votes["reasoning"] += min(count.sum_marks, 3) + min(numbers, 4) * 0.4
    return votes


@define
class _Count:
    votes: defaultdict[str, float]
    has_data: bool = False
    code_marks: int = 0
    sum_marks: int = 0


def _count(text: str) -> _Count:
    """Return the votes of the keywords in ``text``; one that is there twice votes once."""
    wish_end, wish_begin = _wish(text)
    count = _Count(defaultdict(float), has_data=wish_end < wish_begin)
    found: dict[Keyword, float] = {}
    for begin, keyword in _KEYWORDS.find(text):
        count.code_marks += keyword.is_code
        count.sum_marks += keyword.is_sum
        is_wish = begin < wish_end or begin >= wish_begin
        if is_wish or keyword not in found:
            found[keyword] = 1.0 if is_wish else DATA_SHARE
        if keyword.is_language:
            count.votes["translation"] += _language_votes(text, begin, begin + keyword.length)
    for keyword, share in found.items():
        for task, votes in keyword.votes:
            count.votes[task] += votes * share
    return count


def _wish(text: str) -> tuple[int, int]:
    """Return where the wish seems to end, and where it seems to go on: it stands before a colon, a
    quotation or a line's end, and in the last line.
    """
    mark = _DATA.search(text, MIN_WISH_CHARS)
    if mark is None:
        return len(text), len(text)
    return mark.start(), max(text.rfind("\n"), mark.start()) if "\n" in text else len(text)


def _language_votes(text: str, begin: int, end: int) -> int:
    """Return how much the name of a language speaks for translation, where it stands."""
    before = text[max(0, begin - 50) : begin]
    if _INTO.search(before) or _VERSION.match(text, end):
        return 4
    if _AS.search(before):
        return 1
    is_in = _IN.search(before)
    if is_in and (is_in[0][0] in "\"'”»" or text[end : end + 2].strip()[:1] in tuple(":\"'“«")):
        return 3
    return 0


_KEYWORDS = load_keywords()
