"""Which files of a repository are downloaded: weights that cannot run, and what belongs to them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from attrs import frozen

from lmx_hub.names import check_file
from lmx_kernel.errors import InvalidRequestError, ModelUnusableError, NotFoundError
from lmx_kernel.models.labels import is_label, label_of, stem_of

GGUF = ".gguf"
TENSORS = ".safetensors"
KINDS = frozenset({GGUF, TENSORS, ".json", ".txt", ".model", ".jinja"})
PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".ckpt", ".h5", ".msgpack"})
DOCS = re.compile(r"license|notice|.+\.md", re.IGNORECASE)
MAX_DOC_BYTES = 1 << 20

BITS = (4, 5, 6, 3, 8, 2, 16, 32, 1)
"""Of a number in a quantisation, in the order of preference: four bits lose little, and more cost
memory and speed; sixteen are for those who ask for them.
"""

PREFERRED = (
    *("Q4_K_M", "UD-Q4_K_XL", "Q4_K_S", "Q4_K_L", "Q4_0", "Q4_1", "IQ4_XS", "IQ4_NL", "MXFP4"),
    *("MXFP4_MOE", "Q5_K_M", "Q5_K_S", "Q5_0", "Q6_K", "Q3_K_M", "Q3_K_L", "Q3_K_S", "IQ3_M"),
    *("Q8_0", "Q2_K", "Q2_K_L", "IQ2_M", "F16", "BF16", "F32"),
)
"""Those with as many bits in the order of preference; others come after them."""

_PROJECTOR = re.compile(r"mmproj|imatrix", re.IGNORECASE)
_COMPANION = re.compile(
    r"(?<![a-z0-9])(?:projector|draft|mtp|eagle\d*|lora|adapter|vocab)(?![a-z0-9])", re.IGNORECASE
)


@frozen
class RemoteFile:
    """A file on the hub.

    :ivar path: below the repository's root, with slashes.
    :ivar sha256: of a large file's content; None for small ones.
    :ivar blob_id: of a small file: SHA-1 of its content as git counts it.
    """

    path: str
    size_bytes: int
    sha256: str | None
    blob_id: str | None

    @property
    def suffix(self) -> str:
        """The ending of its name, in lower case."""
        return PurePosixPath(self.path).suffix.lower()

    @property
    def name(self) -> str:
        """Its name without folders."""
        return PurePosixPath(self.path).name


@frozen
class Choice:
    """What is downloaded.

    :ivar quantization: which one, in a repository that has several.
    :ivar quantizations: those there are.
    """

    files: tuple[RemoteFile, ...]
    quantization: str | None = None
    quantizations: tuple[str, ...] = ()


def choose(
    files: Sequence[RemoteFile], quantization: str | None, patterns: Collection[str] | None
) -> Choice:
    """Choose the weights, and what belongs to them; of several quantisations, one.

    :param patterns: names, or patterns with ``*``, of files to take instead.
    :raises NotFoundError: there is no such quantisation, or no such file.
    :raises ModelUnusableError: no weights are in a format that is safe, or a name is not.
    """
    allowed = [file for file in files if _is_allowed(file)]
    if patterns:
        choice = Choice(_matching(files, allowed, patterns))
    elif quantization is not None or not _has(allowed, TENSORS):
        choice = _choose_gguf(files, allowed, quantization)
    else:
        choice = Choice(_tensors(allowed))
    for file in choice.files:
        check_file(file.path)
    if len({file.path.casefold() for file in choice.files}) < len(choice.files):
        raise ModelUnusableError("the model has files whose names differ in case only")
    return choice


def quantizations(files: Iterable[RemoteFile]) -> dict[str, list[RemoteFile]]:
    """Return the GGUF files of each quantisation, as their names and folders tell it."""
    found = defaultdict(list)
    for file in _models(files):
        found[label_of(file.path) or stem_of(file.path)].append(file)
    return dict(sorted(found.items()))


def _models(files: Iterable[RemoteFile]) -> list[RemoteFile]:
    """Return the GGUF files without projectors, drafts and the like: here only names can tell.

    Words that may be in a model's own name count only where other files do not have them.
    """
    models = [one for one in files if one.suffix == GGUF and not _PROJECTOR.search(one.path)]
    return [one for one in models if not _COMPANION.search(one.path)] or models


def _choose_gguf(
    files: Sequence[RemoteFile], allowed: Sequence[RemoteFile], wanted: str | None
) -> Choice:
    groups = quantizations(allowed)
    if not groups:
        raise _no_weights(files) if wanted is None else _no_such_quantization(wanted, groups)
    name = _preferred(groups) if wanted is None else _named(groups, wanted)
    docs = [file for file in allowed if _is_doc(file) and "/" not in file.path]
    return Choice((*groups[name], *docs), name, tuple(groups))


def _preferred(groups: Mapping[str, object]) -> str:
    return min(groups, key=_rank)


def _rank(name: str) -> tuple[int, int, str]:
    """Return the sort key of a quantisation; names without a label come last."""
    number = re.search(r"\d+", name) if is_label(name) else None
    bits = int(number[0]) if number else 0
    return (
        BITS.index(bits) if bits in BITS else len(BITS),
        PREFERRED.index(name) if name in PREFERRED else len(PREFERRED),
        name,
    )


def _named(groups: Mapping[str, object], wanted: str) -> str:
    for name in groups:
        if name.casefold() == wanted.casefold():
            return name
    raise _no_such_quantization(wanted, groups)


def _no_such_quantization(wanted: str, groups: Iterable[str]) -> NotFoundError:
    there = ", ".join(groups) or "none"
    message = f"the model has no quantization {wanted[:40]!a}; there are: {there}"
    return NotFoundError(message, param="quantization")


def _tensors(allowed: Sequence[RemoteFile]) -> tuple[RemoteFile, ...]:
    """Return what lies at the top: folders hold other forms of the same weights.

    So do further files at the top, where some are called ``model``.
    """
    top = [file for file in allowed if "/" not in file.path and file.suffix != GGUF]
    weights = [file for file in top if file.suffix == TENSORS]
    if not weights:
        raise ModelUnusableError("the model has weights in folders only: name the files to take")
    main = [file for file in weights if file.name.startswith("model")] or weights
    return tuple(file for file in top if file.suffix != TENSORS or file in main)


def _matching(
    files: Sequence[RemoteFile], allowed: Sequence[RemoteFile], patterns: Iterable[str]
) -> tuple[RemoteFile, ...]:
    chosen: dict[str, RemoteFile] = {}
    for pattern in patterns:
        found = {file.path: file for file in allowed if fnmatchcase(file.path, pattern)}
        if not found:
            if any(fnmatchcase(file.path, pattern) for file in files):
                why = f"files like {pattern[:80]!a} are not downloaded: they could hold code"
                raise InvalidRequestError(why, param="files")
            raise NotFoundError(f"the model has no file {pattern[:80]!a}", param="files")
        chosen |= found
    return tuple(chosen.values())


def _no_weights(files: Sequence[RemoteFile]) -> ModelUnusableError:
    if any(file.suffix in PICKLES for file in files):
        return ModelUnusableError(
            "the model's weights are there only in a format that can run code (pickle): "
            "look for a version in safetensors or GGUF"
        )
    return ModelUnusableError("the repository holds no weights in safetensors or GGUF")


def _has(files: Iterable[RemoteFile], suffix: str) -> bool:
    return any(file.suffix == suffix for file in files)


def _is_allowed(file: RemoteFile) -> bool:
    return file.suffix in KINDS or (_is_doc(file) and file.size_bytes <= MAX_DOC_BYTES)


def _is_doc(file: RemoteFile) -> bool:
    return DOCS.fullmatch(file.name) is not None
