"""Rules to functions: what a rule asks of a request, and nothing else, is looked at."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from fnmatch import translate

from lmx_kernel.config.days import DAYS
from lmx_router_rules.request_facts import RequestFacts
from lmx_router_rules.settings import Rule

Condition = Callable[[RequestFacts], bool]
DAY_MINUTES = 24 * 60


def is_glob(name: str) -> bool:
    """Return whether a name stands for several."""
    return any(char in name for char in "*?[")


def matcher(globs: Iterable[str]) -> Callable[[str], bool]:
    """Return a function that says whether a text is one of ``globs``, in any case."""
    pattern = re.compile("|".join(map(translate, globs)), re.IGNORECASE)
    return lambda text: pattern.match(text) is not None


def conditions(rule: Rule) -> Iterator[Condition]:
    """Yield what must all be true of a request, the quickest first."""
    yield from _flags(rule)
    if rule.days or rule.hours:
        yield _times(rule)
    if rule.pressure:
        yield lambda facts: facts.context.memory_pressure in rule.pressure
    if rule.keys:
        is_key = matcher(rule.keys)
        yield lambda facts: is_key(facts.key)
    if rule.clients:
        is_client = matcher(rule.clients)
        yield lambda facts: any(map(is_client, facts.clients))
    for name, glob in rule.headers.items():
        yield _header(name.lower(), matcher([glob]))
    if rule.min_prompt_tokens or rule.max_prompt_tokens is not None:
        yield lambda facts: _is_between(
            facts.tokens, rule.min_prompt_tokens, rule.max_prompt_tokens
        )
    if rule.task:
        yield lambda facts: facts.task in rule.task


def _flags(rule: Rule) -> Iterator[Condition]:
    if rule.structured is not None:
        yield lambda facts: facts.is_structured is rule.structured
    if rule.tools is not None:
        yield lambda facts: facts.has_tools is rule.tools
    if rule.images is not None:
        yield lambda facts: facts.has_images is rule.images
    if rule.system is not None:
        yield lambda facts: facts.has_system is rule.system


def _header(name: str, is_value: Callable[[str], bool]) -> Condition:
    return lambda facts: name in facts.headers and is_value(facts.headers[name])


def _times(rule: Rule) -> Condition:
    days = {DAYS.index(day) for day in rule.days or DAYS}
    spans = [_span(text) for text in rule.hours] or [(0, DAY_MINUTES)]

    def is_time(facts: RequestFacts) -> bool:
        today = facts.context.now.weekday()
        return any(_day_of(today, facts.minute, *span) in days for span in spans)

    return is_time


def _span(text: str) -> tuple[int, int]:
    """Return the minutes since midnight between which a span lies."""
    begin, end = (int(part[:2]) * 60 + int(part[3:]) for part in text.split("-"))
    return begin, end


def _day_of(today: int, minute: int, begin: int, end: int) -> int | None:
    """Return the day on which the span began that it is now; None if it is another time."""
    if begin <= minute < (end if begin < end else DAY_MINUTES):
        return today
    return (today - 1) % 7 if minute < end < begin else None


def _is_between(count: int, least: int, most: int | None) -> bool:
    return least <= count and (most is None or count <= most)
