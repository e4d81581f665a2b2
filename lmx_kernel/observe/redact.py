"""Masks secrets in logs, and escapes control characters that could forge lines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import structlog

MASK = "***"
MAX_CHARS = 8192  # of one value
MAX = 2**63  # many JSON parsers cannot read larger integers

_SECRET_NAME = re.compile(
    r"(?:^|_)(?:authorization|cookie|token|secret|password|passwd|api_?key)$", re.IGNORECASE
)
# Recognised by the text before it, which contains one of _SIGNS.
_NAMED = re.compile(
    r"""
      (?P<url> :// ) [^\s/?#"']+ (?=@)                              # user and password
    | (?P<query> [\w/] \? ) (?=[\w-]+=) [^\s"'<>]+                  # links may be signed
    | (?P<option> (?<![\w-]) --[\w-]{0,40}?                        # of a command line
        (?: key | token | secret | password | passwd ) ["']? [\s,=]+ ["']? ) [^\s"'&,;]+
    | (?P<scheme> \b bearer \s+ ) [^\s"',;]+
    | (?P<cookie> cookie ["']? \s*[:=]\s* ["']? ) [^\n"']+
    | (?P<name> (?: authorization | token | secret | password | passwd | signature | api[-_]?key )
        ["']? \s*[:=]\s* ["']? (?: (?: basic | bearer ) \s+ )? ) [^\s"'&,;]+
    """,
    re.IGNORECASE | re.VERBOSE,
)
_SIGNS = (":", "=", " ")
# Recognised by their form: keys of LMX, of model servers and hubs, of clouds; and JSON web tokens.
_TOKENS = re.compile(
    r"""
      lmx-[\w-]{43}
    | \b (?: hf | sk | gh[opsur] | gsk | github_pat | glpat | npm ) [-_] \w{16,}
    | \b sk- [a-z]{2,8}\d* - [\w-]{8,} (?: : [\w-]{8,} )?
    | \b A[KS]IA [0-9A-Z]{16} \b
    | \b AIza [\w-]{35}
    | \b xox[a-z]- [\w-]{10,}
    | (?<![\w-]) eyJ [\w-]{8,} \. [\w-]{8,} \. [\w-]{8,}
    """,
    re.VERBOSE,
)


def redact(text: str) -> str:
    """Return ``text`` with secrets masked that are recognised by their form or by their name."""
    if any(sign in text for sign in _SIGNS):
        text = _NAMED.sub(lambda found: found[found.lastgroup or 0] + MASK, text)
    return _TOKENS.sub(MASK, text)


def one_line(text: str, max_chars: int = MAX_CHARS) -> str:
    """Return ``text`` redacted, truncated, and without control characters."""
    # Redact before the final truncation: a truncated secret would not be recognised.
    text = redact(text[: 2 * MAX_CHARS])[:max_chars]
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def redact_event(_logger: Any, _method: str, event: structlog.typing.EventDict) -> Any:
    """Redact one line: the last step before it is rendered."""
    trace = event.pop("exception", None)
    cleaned = _clean(event)
    if trace is not None:
        cleaned["exception"] = "\n".join(map(one_line, trace.splitlines()))
    return cleaned


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return one_line(value)
    if value is None or isinstance(value, float) or (isinstance(value, int) and -MAX < value < MAX):
        return value
    if isinstance(value, Mapping):
        return {str(name): _clean_item(str(name), item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(item) for item in value]
    return one_line(str(value))


def _clean_item(name: str, value: Any) -> Any:
    return MASK if value and _is_secret(name) else _clean(value)


@lru_cache(1024)
def _is_secret(name: str) -> bool:
    return _SECRET_NAME.search(name.replace("-", "_")) is not None
