"""Names that come from outside: which are taken, and that they lead nowhere else."""

from __future__ import annotations

import re
from pathlib import Path

from lmx_kernel.errors import ForbiddenError, InvalidRequestError, ModelUnusableError

_PART = r"\w(?:[\w.-]{0,94}\w)?"
_REPO = re.compile(f"{_PART}/{_PART}", re.ASCII)
_REVISION = re.compile(r"\w[\w./+-]{0,199}", re.ASCII)
_UNLISTED = (".part", ".incomplete", ".git")
MAX_SEGMENT_BYTES = 200
MAX_PATH_BYTES = 800


def check_repo(repo: str) -> None:
    """Check that ``repo`` is ``publisher/name``.

    :raises InvalidRequestError: it is not.
    """
    is_one = _REPO.fullmatch(repo) and ".." not in repo and "--" not in repo
    if not is_one or repo.lower().endswith(_UNLISTED):
        raise InvalidRequestError(
            "a model on the hub is named publisher/name, or publisher/name:Q4_K_M for one of "
            "several quantizations",
            param="repo",
        )


def check_revision(revision: str) -> None:
    """Check that ``revision`` may be a branch, a tag or a commit.

    :raises InvalidRequestError: it may not.
    """
    if not _REVISION.fullmatch(revision) or ".." in revision:
        raise InvalidRequestError("a revision is a branch, a tag or a commit", param="revision")


def check_file(path: str) -> None:
    """Check that a hub's name of a file is one that stays below any folder, on any system.

    :raises ModelUnusableError: it is not; who publishes such names means no good.
    """
    segments = path.split("/")
    if len(_encoded(path)) > MAX_PATH_BYTES or not all(map(_is_segment, segments)):
        raise ModelUnusableError(
            f"the model has a file with a name that is not safe: {path[:80]!a}"
        )


def inside(root: Path, path: Path) -> Path:
    """Return ``path``, if the folder it is in lies below ``root`` when all links are followed.

    :raises ForbiddenError: a link leads elsewhere.
    """
    if not path.parent.resolve().is_relative_to(root.resolve()):
        raise ForbiddenError("a link in the folder for downloads leads out of it")
    return path


def _is_segment(segment: str) -> bool:
    return (
        segment.isprintable()
        and not segment.startswith(".")
        and segment == segment.strip().rstrip(".")
        and not set(segment) & set('\\:<>"|?*')
        and 0 < len(_encoded(segment)) <= MAX_SEGMENT_BYTES
    )


def _encoded(text: str) -> bytes:
    return text.encode(errors="replace")
