"""What people paste to name a model on the hub: names with a quantisation, and addresses of pages.

The forms of addresses are those of the hub's own pages: ``/publisher/name``, then
``/tree/revision`` and a folder, or ``/blob/revision`` (also ``resolve`` and ``raw``) and a file.
"""

from __future__ import annotations

import glob
import re
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from attrs import frozen

from lmx_kernel.errors import InvalidRequestError

HOSTS = frozenset({"huggingface.co", "www.huggingface.co", "hf.co"})
SCHEMES = ("https", "http", "hf")
FILE_PAGES = ("blob", "resolve", "raw")
OTHER_PAGES = ("datasets", "spaces", "collections", "models", "papers", "docs", "api")
MODEL_ENDING = ".gguf"
_NAME = re.compile(r"(?P<repo>[^/:@]+/[^/:@]+)(?:[:@](?P<quantization>[^/:@]+))?")
_PART = re.compile(r"-\d{5}-of-(\d{5}\.gguf)$")
_SHOWN_CHARS = 80


@frozen
class Reference:
    """A model on the hub, and what of it is meant.

    :ivar repo: ``publisher/name``; its characters are not checked.
    :ivar quantization: such as Q4_K_M, as it was written; None if none was named.
    :ivar revision: of an address that names one.
    :ivar files: patterns of the files that an address names.
    """

    repo: str
    quantization: str | None = None
    revision: str | None = None
    files: tuple[str, ...] | None = None


def parse_reference(text: str, endpoint: str = "") -> Reference:
    """Return what ``text`` names: ``publisher/name``, with ``:Q4_K_M`` or ``@Q4_K_M`` behind it, or
    the address of a model's page, of a folder or of a GGUF file there.

    :param endpoint: the address of the hub, if it is not the public one.
    :raises InvalidRequestError: it is none of these; the message says what to type.
    """
    text = text.strip()
    hosts = HOSTS | {urlsplit(endpoint).netloc} - {""}
    scheme, has_scheme, rest = text.partition("://")
    if has_scheme:
        if scheme.lower() not in SCHEMES:
            raise _refusal(text, "is no address of the hub")
        if scheme.lower() == "hf":
            return _named(rest, text)
    host, _, path = (rest if has_scheme else text).partition("/")
    if host.lower() in hosts:
        return _of_page(path, text)
    if has_scheme:
        raise _refusal(text, "is no address of the hub")
    return _named(text, text)


def _named(name: str, text: str) -> Reference:
    found = _NAME.fullmatch(name)
    if found is None:
        raise _refusal(text, "is no name of a model on the hub")
    return Reference(found["repo"], found["quantization"])


def _of_page(path: str, text: str) -> Reference:
    path = path.partition("?")[0].partition("#")[0].rstrip("/")
    parts = [unquote(part) for part in path.split("/")]
    if parts[0] in OTHER_PAGES or len(parts) < 2:
        raise _refusal(text, "is no page of a model")
    model = _named(f"{parts[0]}/{parts[1].removesuffix('.git')}", text)
    if len(parts) == 2:
        return model
    page, revision, inner = parts[2], parts[3] if len(parts) > 3 else None, "/".join(parts[4:])
    if page == "tree" and revision:
        files = (f"{glob.escape(inner)}/*",) if inner else None
        return Reference(model.repo, model.quantization, revision, files)
    if page in FILE_PAGES and revision and inner:
        return Reference(model.repo, None, revision, (_file_pattern(inner, model.repo),))
    return model  # a tab of the page, such as its discussions


def _file_pattern(path: str, repo: str) -> str:
    """Return the pattern of a GGUF file with all its parts.

    :raises InvalidRequestError: it is another file, which alone is no model.
    """
    if PurePosixPath(path).suffix.lower() != MODEL_ENDING:
        raise InvalidRequestError(
            f"{path[:_SHOWN_CHARS]!a} is one file of a model: type {repo} for the whole model, or "
            "name the files to take",
            param="repo",
        )
    return _PART.sub(r"-*-of-\1", glob.escape(path))


def _refusal(text: str, why: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{text[:_SHOWN_CHARS]!a} {why}: type publisher/name, or publisher/name:Q4_K_M for one of "
        "several quantizations",
        param="repo",
    )
