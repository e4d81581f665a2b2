"""Patterns for the formats of strings that JSON schemas name.

A pattern is all that a mask needs, in JSON and in any other notation, and unlike most parsers of
such texts it bounds their length. Each matches a part of what its format allows.
"""

from __future__ import annotations

_DATE = (
    r"(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    r"|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    r"|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)"
)
_TIME = (
    r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?"
    r"(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
_NUMBER = "[0-9]{1,9}"
_CLOCK = (
    f"T(?:{_NUMBER}H(?:{_NUMBER}M(?:{_NUMBER}S)?)?|{_NUMBER}M(?:{_NUMBER}S)?"
    rf"|{_NUMBER}(?:\.[0-9]{{1,6}})?S)"
)
_DAYS = f"(?:{_NUMBER}Y(?:{_NUMBER}M(?:{_NUMBER}D)?)?|{_NUMBER}M(?:{_NUMBER}D)?|{_NUMBER}D)"
_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = rf"{_LABEL}(?:\.{_LABEL}){{0,8}}"
_ATOM = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,64}"
_BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_GROUP = "[0-9A-Fa-f]{1,4}"
_SHORTENED = [
    f"(?:{_GROUP}:){{1,{before}}}(?::{_GROUP}){{1,{7 - before}}}" for before in range(1, 7)
]
_IPV6 = "|".join(
    (
        f"(?:{_GROUP}:){{7}}{_GROUP}",
        f"(?:{_GROUP}:){{1,7}}:",
        f":(?::{_GROUP}){{1,7}}",
        "::",
        *_SHORTENED,
    )
)
_URI_CHAR = r"[A-Za-z0-9._~:/?#@!$&'()*+,;=%\[\]-]"

PATTERNS = {
    "date-time": f"{_DATE}T{_TIME}",
    "date": _DATE,
    "time": _TIME,
    "duration": f"P(?:{_DAYS}(?:{_CLOCK})?|{_CLOCK}|{_NUMBER}W)",
    "email": rf"{_ATOM}(?:\.{_ATOM}){{0,4}}@{_HOST}",
    "hostname": _HOST,
    "ipv4": rf"{_BYTE}(?:\.{_BYTE}){{3}}",
    "ipv6": _IPV6,
    "uuid": "[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
    "uri": rf"[A-Za-z][A-Za-z0-9+.-]{{1,31}}:(?://{_HOST}(?::[0-9]{{1,4}})?"
    rf"(?:[/?#]{_URI_CHAR}*)?|[A-Za-z0-9]{_URI_CHAR}*)",
}
"""By format; any other format only describes. Sources: RFC 3339 (section 5.6 and appendix A),
RFC 5321, RFC 1123, RFC 4291, RFC 4122, RFC 3986."""


def pattern_of(name: object) -> str | None:
    """Return the pattern of a format; None for one that forbids nothing.

    By the standard, formats may be mere annotations (JSON Schema 2020-12, Validation, section 7).
    """
    found = PATTERNS.get(name) if isinstance(name, str) else None
    return found and f"^(?:{found})$"


def whole(pattern: str) -> str | None:
    """Return a pattern that matches a whole text where ``pattern`` matches a part of it, without
    anchors; None where its anchors stand within it.
    """
    begins, ends = pattern.startswith("^"), _ends(pattern)
    inner = pattern[begins : len(pattern) - ends]
    if _has_outer(inner, "^$") or ((begins or ends) and _has_outer(inner, "|", depth=0)):
        return None
    return f"{'' if begins else '(?s:.*)'}(?:{inner}){'' if ends else '(?s:.*)'}"


def _ends(pattern: str) -> bool:
    escapes = len(pattern) - 1 - len(pattern[:-1].rstrip("\\"))
    return pattern.endswith("$") and escapes % 2 == 0


def _has_outer(pattern: str, wanted: str, depth: int | None = None) -> bool:
    """Return whether a pattern has one of some characters outside of its classes and escapes.

    :param depth: in how many groups they stand; None for any.
    """
    groups, is_class, at = 0, False, 0
    while at < len(pattern):
        char = pattern[at]
        if char == "\\":
            at += 1
        elif is_class:
            is_class = char != "]"
        elif char == "[":
            is_class = True
            at += pattern.startswith("^", at + 1)  # the sign of a complement
        elif char in "()":
            groups += 1 if char == "(" else -1
        elif char in wanted and depth in (None, groups):
            return True
        at += 1
    return False
