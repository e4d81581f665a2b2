"""Labels of quantisations, as publishers write them into names of files and folders."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

_PART = re.compile(r"-\d{5}-of-\d{5}$")
_LABEL = re.compile(
    r"(?<![A-Z0-9])(?:UD-)?"
    r"(?:I?Q\d(?:_[A-Z0-9]+)*|TQ\d_\d|(?:MX|NV)FP4(?:_[A-Z0-9]+)*|BF16|FP?16|FP?32)"
    r"(?![A-Z0-9])"
)


def stem_of(path: str) -> str:
    """Return the name of a file without its ending, and without the number of a part."""
    return _PART.sub("", PurePosixPath(path).stem)


def label_of(path: str) -> str | None:
    """Return the label in a file's name, or else in that of the innermost folder that has one.

    :param path: relative, with slashes.
    :returns: in capitals, such as Q4_K_M or F16; None if there is none.
    """
    folders = PurePosixPath(path).parent.parts
    for name in (stem_of(path), *reversed(folders)):
        if labels := _LABEL.findall(name.upper()):
            return _normal(labels[-1])
    return None


def is_label(name: str) -> bool:
    """Return whether a name is nothing but a label."""
    return _LABEL.fullmatch(name.upper()) is not None


def as_label(name: str) -> str:
    """Return a label as :func:`label_of` writes it; any other name as it is."""
    return _normal(name.upper()) if is_label(name) else name


def _normal(label: str) -> str:
    return re.sub("^FP", "F", label)
