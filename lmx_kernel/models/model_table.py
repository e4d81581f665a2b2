"""What an owner may set for each model: the tables ``[[model]]`` of the config.

The API sets the same keys for one model, see :mod:`lmx_kernel.models.saved_settings`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import translate
from functools import cache
from pathlib import Path
from typing import Any

from attrs import field, frozen, validators

from lmx_kernel.config import LIVE
from lmx_kernel.config.strict import ENTRIES, REST

optional = validators.optional
REST_FIELD = "backend_keys"
_INT64 = 1 << 63
_NAME = re.compile(r"[\w.@+-]{1,64}")


def _within(least: float, most: float) -> Any:
    return optional([validators.ge(least), validators.le(most)])


def _check_bias(_: Any, __: Any, bias: Mapping[str, float] | None) -> None:
    for token, number in (bias or {}).items():
        if not token.isdecimal() or not -100 <= number <= 100:
            raise ValueError(f"expected token ids with numbers from -100 to 100, found {token!r}")


def _check_plain(_: Any, __: Any, value: Any) -> None:
    """Refuse what JSON cannot express, such as dates: the values go to other processes."""
    if isinstance(value, dict):
        for inner in value.values():
            _check_plain(_, __, inner)
    elif isinstance(value, list):
        for inner in value:
            _check_plain(_, __, inner)
    elif not isinstance(value, bool | int | float | str | None):
        raise ValueError(f"expected values as in JSON, found {value}")
    elif type(value) is int and not -_INT64 <= value < _INT64:
        raise ValueError("expected numbers of at most 64 bits")


def _check_stop(_: Any, __: Any, texts: tuple[str, ...] | None) -> None:
    if texts is not None and not (len(texts) <= 16 and all(0 < len(text) <= 256 for text in texts)):
        raise ValueError("expected at most 16 texts of 1 to 256 characters")


def _check_aliases(_: Any, __: Any, names: tuple[str, ...] | None) -> None:
    if not all(0 < len(name) <= 512 for name in names or ()):
        raise ValueError("expected names of 1 to 512 characters")


def _check_drafts(_: Any, __: Any, names: tuple[str, ...] | None) -> None:
    if not all(0 < len(name) <= 512 for name in names or ()):
        raise ValueError("expected names of sources of drafts, of 1 to 512 characters")
    if len(set(names or ())) < len(names or ()):
        raise ValueError("names a source of drafts twice")


def _check_profiles(_: Any, __: Any, profiles: Mapping[str, Any]) -> None:
    for name in profiles:
        if not _NAME.fullmatch(name):
            raise ValueError(f"'{name}' cannot follow a model's name and a colon")


def _check_path(_: Any, __: Any, path: Path | None) -> None:
    if path is not None and not path.is_absolute():
        raise ValueError(f"expected a whole path, found '{path}'")


@frozen(kw_only=True)
class SamplingTable:
    """Sampling for requests that leave it open, see :class:`lmx_kernel.types.Sampling`.

    :ivar logit_bias: by token id; a key of TOML is a text.
    """

    temperature: float | None = field(default=None, validator=_within(0, 2))
    top_k: int | None = field(default=None, validator=_within(0, 2**31 - 1))
    top_p: float | None = field(default=None, validator=_within(1e-6, 1))
    min_p: float | None = field(default=None, validator=_within(0, 1))
    repetition_penalty: float | None = field(default=None, validator=_within(1e-3, 10))
    presence_penalty: float | None = field(default=None, validator=_within(-2, 2))
    frequency_penalty: float | None = field(default=None, validator=_within(-2, 2))
    seed: int | None = field(default=None, validator=_within(0, _INT64 - 1))
    logit_bias: dict[str, float] | None = field(default=None, validator=_check_bias)


@frozen(kw_only=True)
class RequestValues:
    """What requests get that leave it open.

    :ivar max_tokens: of an answer.
    :ivar max_tokens_limit: of an answer, whatever a request asks for.
    :ivar stop: texts that end an answer.
    :ivar template_options: names that the chat template gets, such as ``enable_thinking``.
    :ivar reasoning_tokens: the most tokens of reasoning.
    """

    sampling: SamplingTable = SamplingTable()
    max_tokens: int | None = field(default=None, validator=optional(validators.ge(1)))
    max_tokens_limit: int | None = field(default=None, validator=optional(validators.ge(1)))
    stop: tuple[str, ...] | None = field(default=None, validator=_check_stop)
    template_options: dict[str, Any] = field(factory=dict, validator=_check_plain)
    reasoning_tokens: int | None = field(default=None, validator=optional(validators.ge(0)))


@frozen(kw_only=True)
class Profile(RequestValues):
    """What requests get that ask for a model as ``name:profile``."""


@frozen(kw_only=True)
class ModelValues(RequestValues):
    """What may be set for a model; None, or empty, leaves it to whoever comes next.

    :ivar aliases: further names.
    :ivar profiles: further values for requests, by a name each.
    :ivar ttl_s: it is unloaded after so long without a request; 0 is never.
    :ivar pinned: never unload it to make room for another.
    :ivar autoload: load it at the start.
    :ivar backend: where several could run it.
    :ivar chat_template: a file that replaces the model's own template.
    :ivar format: the name of a chat format; by default the one that fits the template.
    :ivar hidden: it is in no list, and answers nevertheless.
    :ivar drafts: where drafts come from: ``copy``, a plugin's source, or a model; empty for no
        drafts.
    :ivar reproducible: the same request and seed have the same answer, bit for bit.
    :ivar backend_keys: keys of the backend's own section, for this model.
    """

    aliases: tuple[str, ...] | None = field(default=None, validator=_check_aliases)
    profiles: dict[str, Profile] = field(factory=dict, validator=_check_profiles)
    context_length: int | None = field(default=None, validator=_within(16, 2**31 - 1))
    parallel: int | None = field(default=None, validator=_within(1, 256))
    cache_tokens: int | None = field(default=None, validator=_within(0, 2**31 - 1))
    ttl_s: float | None = field(default=None, validator=_within(0, 10**9))
    pinned: bool | None = None
    autoload: bool | None = None
    backend: str | None = None
    chat_template: Path | None = field(default=None, validator=_check_path)
    format: str | None = None
    hidden: bool | None = None
    drafts: tuple[str, ...] | None = field(default=None, validator=_check_drafts)
    reproducible: bool | None = None
    backend_keys: dict[str, Any] = field(factory=dict, metadata=REST)


@frozen(kw_only=True)
class ModelTable(ModelValues):
    """One table ``[[model]]``.

    :ivar match: a model's id, its last part, or a glob for either, in any case.
    """

    match: str = field(validator=validators.min_len(1))


@frozen(kw_only=True)
class ModelTables:
    """The section ``[[model]]``: of two tables that set the same key, the later one counts."""

    tables: tuple[ModelTable, ...] = field(default=(), metadata=LIVE | ENTRIES)


@cache
def _pattern(match: str) -> re.Pattern[str]:
    return re.compile(translate(match), re.IGNORECASE)


def fits(match: str, model: str) -> bool:
    """Return whether the value of ``match`` is for the model of this id."""
    return any(map(_pattern(match).fullmatch, (model, model.rpartition("/")[2])))
