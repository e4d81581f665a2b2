"""The section ``[router_rules]`` of the config."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from attrs import field, frozen, validators
from cattrs import IterableValidationError, IterableValidationNote

from lmx_kernel.config import LIVE
from lmx_kernel.config.days import Day

Pressure = Literal["ease", "soft", "hard"]
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
_SPAN = re.compile(r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d")


def _check_hours(_: Any, __: Any, spans: Iterable[str]) -> None:
    for span in spans:
        if not _SPAN.fullmatch(span):
            raise ValueError(f"expected HH:MM-HH:MM, found '{span}'")
        begin, _, end = span.partition("-")
        if begin == end:
            raise ValueError(f"'{span}' is no time at all; for all day, leave it out")


def _check_models(_: Any, __: Any, models: Iterable[str]) -> None:
    if not all(models) or not models:
        raise ValueError("name at least one model, and none as an empty string")


class _FaultsError(IterableValidationError, ValueError):
    """What is wrong with items of one key. A ValueError, since that is what validators raise."""


def _refuse(faults: Iterable[tuple[str | int, str]]) -> None:
    """Raise what is wrong, each at its own place, if anything is."""
    errors = []
    for place, why in faults:
        errors.append(ValueError(why))
        errors[-1].add_note(IterableValidationNote(why, place, str))
    if errors:
        raise _FaultsError("; ".join(str(error) for error in errors), errors, tuple)


def _check_rules(_: Any, __: Any, rules: Sequence[Rule]) -> None:
    _refuse(_faults_of_rules(rules))


def _faults_of_rules(rules: Sequence[Rule]) -> Iterator[tuple[int, str]]:
    names: set[str] = set()
    for place, rule in enumerate(rules):
        if rule.name in names:
            yield place, f"there are several rules called '{rule.name}'"
        most = rule.max_prompt_tokens
        if most is not None and most < rule.min_prompt_tokens:
            yield place, f"'{rule.name}': max_prompt_tokens is less than min_prompt_tokens"
        names.add(rule.name)


def _check_aliases(_: Any, __: Any, aliases: Mapping[str, tuple[str, ...]]) -> None:
    _refuse(_faults_of_aliases(aliases))


def _faults_of_aliases(aliases: Mapping[str, tuple[str, ...]]) -> Iterator[tuple[str, str]]:
    folded = {
        name.casefold(): [one.casefold() for one in models] for name, models in aliases.items()
    }
    for name, models in aliases.items():
        if not models or not all(models):
            yield name, f"'{name}' names no model"
        elif _leads_back(name.casefold(), folded):
            yield name, f"'{name}' leads back to itself"


def _leads_back(name: str, aliases: Mapping[str, Sequence[str]]) -> bool:
    seen: set[str] = set()
    todo = list(aliases[name])
    while todo:
        one = todo.pop()
        if one == name:
            return True
        if one in aliases and one not in seen:
            seen.add(one)
            todo += aliases[one]
    return False


@frozen(kw_only=True)
class Rule:
    """One entry of ``router_rules.rules``: where requests go that show all that it names.

    A list means any of its items; a key that is not given does not matter. ``*``, ``?`` and
    ``[...]`` in names stand for any text, one character, and one of these.

    :ivar name: for headers, listings and errors.
    :ivar models: where they go, best first: models, globs (the largest first), or aliases.

    Of the request:

    :ivar asked: the names that clients ask for; not given, those of ``router_rules.auto``.
    :ivar swap: a glob in ``asked`` means installed models, too: requests for them go elsewhere. A
        name that is written out always does.
    :ivar task: what it is about, as `lmx route` says.
    :ivar min_prompt_tokens: as estimated, a quarter of the bytes.
    :ivar max_prompt_tokens: as estimated.
    :ivar tools: whether there are tools that may be called.
    :ivar images: whether a message has an image.
    :ivar structured: whether the answer must have a form, such as a JSON schema.
    :ivar system: whether there is a system text.
    :ivar keys: the names of the API keys that they come with.
    :ivar clients: the address, or what the client calls itself (``user-agent``).
    :ivar headers: what these headers say.
    :ivar hours: local times, ``HH:MM-HH:MM``; one that ends before it begins goes past midnight.
    :ivar days: the weekdays. What goes past midnight belongs to the day on which it began.
    :ivar pressure: how scarce memory is.

    Of its models; those that do not fit are passed over, and the rule is if none does:

    :ivar loaded: only those that are loaded, or only those that are not.
    :ivar max_waiting: as many requests may wait there at most.
    :ivar min_tokens_per_s: of one answer, lately; a model that has not answered yet may be tried.
    :ivar max_wait_s: a request may have to wait there for so long at most, as far as that is known.

    How to choose:

    :ivar prefer_loaded: loaded models come first.
    :ivar balance: its models are equals: loaded ones come first, then those for which fewest wait.
    :ivar sticky: among equals, a conversation stays where it began, for the sake of its cache.
    :ivar strict: only the best model will do; its error is answered if it cannot take the request.
    """

    name: str = field(validator=validators.min_len(1))
    models: tuple[str, ...] = field(validator=_check_models)
    asked: tuple[str, ...] = ()
    swap: bool = False
    task: tuple[Task, ...] = ()
    min_prompt_tokens: int = field(default=0, validator=validators.ge(0))
    max_prompt_tokens: int | None = field(
        default=None, validator=validators.optional(validators.ge(0))
    )
    tools: bool | None = None
    images: bool | None = None
    structured: bool | None = None
    system: bool | None = None
    keys: tuple[str, ...] = ()
    clients: tuple[str, ...] = ()
    headers: dict[str, str] = field(factory=dict)
    hours: tuple[str, ...] = field(default=(), validator=_check_hours)
    days: tuple[Day, ...] = ()
    pressure: tuple[Pressure, ...] = ()
    loaded: bool | None = None
    max_waiting: int | None = field(default=None, validator=validators.optional(validators.ge(0)))
    min_tokens_per_s: float | None = None
    max_wait_s: float | None = field(default=None, validator=validators.optional(validators.gt(0)))
    prefer_loaded: bool = False
    balance: bool = False
    sticky: bool = True
    strict: bool = False


@frozen(kw_only=True)
class RulesSettings:
    """Section ``[router_rules]``.

    :ivar auto: the names that ask for whatever the rules say.
    :ivar rules: asked in this order; the first that holds decides.
    :ivar aliases: further names for models: a chain for each; ``*``, ``?`` and ``[...]`` in the
        name stand for any text. They are asked after the rules.
    :ivar default: where requests for an ``auto`` name go if no rule holds, loaded models first.
    :ivar long_tokens: prompts of so many tokens, as estimated, are of the task ``long_context``.
    """

    auto: tuple[str, ...] = field(default=("auto",), metadata=LIVE)
    rules: tuple[Rule, ...] = field(default=(), validator=_check_rules, metadata=LIVE)
    aliases: dict[str, tuple[str, ...]] = field(
        factory=dict, validator=_check_aliases, metadata=LIVE
    )
    default: tuple[str, ...] = field(default=("*",), validator=_check_models, metadata=LIVE)
    long_tokens: int = field(default=6000, validator=validators.gt(0), metadata=LIVE)
