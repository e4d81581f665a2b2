"""LM Studio's own folders: its models, and the names that it gives to them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
from attrs import define, evolve, field

from lmx_kernel.types import Location
from lmx_model_folders.sources import FolderSource

MAX_FILE_BYTES = 1024 * 1024
_POINTER = "~/.lmstudio-home-pointer"  # names the folder if the user has moved it
_HOMES = ("~/.lmstudio", "~/.cache/lm-studio")  # the current one, and that of older versions
_ENDING = re.compile(r"(?:-(?:gguf|mlx|\d+bit|bf16|fp16))+$")


def homes() -> tuple[Path, ...]:
    """Return the folders that LM Studio may have its files in."""
    named = _read(Path(_POINTER).expanduser()).strip()
    return tuple(dict.fromkeys(Path(home).expanduser() for home in (named, *_HOMES) if home))


def settings_of(home: Path) -> Mapping[str, Any]:
    """Return LM Studio's ``settings.json``; nothing if there is none, or it is damaged."""
    return read_object(home / "settings.json")


def read_object(file: Path) -> Mapping[str, Any]:
    """Return the JSON object in a file of LM Studio's; an empty one if it cannot be read."""
    with suppress(ValueError):
        return msgspec.json.decode(_read(file), type=dict[str, Any])
    return {}


def model_folders() -> tuple[Path, ...]:
    """Return the folders that LM Studio keeps models in: by default, and as the user set it."""
    folders = []
    for home in homes():
        chosen = settings_of(home).get("downloadsFolder")
        folders += [Path(chosen).expanduser()] if isinstance(chosen, str) and chosen else []
        folders.append(home / "models")
    return tuple(dict.fromkeys(folders))


@define
class LMStudioSource:
    """The models of LM Studio. They answer to the ids that it shows for them too.

    :param owned: LMX deletes nothing there.
    """

    name: str
    folders: FolderSource = field(factory=lambda: FolderSource("lm_studio", model_folders()))

    def locations(self) -> Iterator[Location]:
        """Yield every folder with files, with the names that LM Studio has for a model there."""
        catalogue = _catalogue_names()
        for location in self.folders.locations():
            yield evolve(location, aliases=_names(location.name, catalogue))

    def delete(self, card: Any) -> None:
        """Refuse: the files are another program's.

        :raises ForbiddenError: always.
        """
        self.folders.delete(card)


def _names(place: str, catalogue: Mapping[str, list[str]]) -> tuple[str, ...]:
    """Return LM Studio's names for a model at ``place``, such as ``maker/Some-7B-GGUF``: in small
    letters without what tells the format, ``some-7b``, with a prefix if it makes embeddings.

    :param catalogue: names of its catalogue, by the repository that they stand for.
    """
    publisher, slash, name = place.rpartition("/")
    key = _ENDING.sub("", name.lower())
    owner = f"{publisher}{slash}".lower()
    names = [key, f"{owner}{key}", f"text-embedding-{key}", *catalogue.get(place.lower(), ())]
    return tuple(name for name in dict.fromkeys(names) if name != place)


def _catalogue_names() -> Mapping[str, list[str]]:
    """Return the names of models that came from LM Studio's catalogue, by what they stand for.

    Each is a file ``hub/models/MAKER/NAME/model.yaml``; see https://modelyaml.org.
    """
    found: defaultdict[str, list[str]] = defaultdict(list)
    for home in homes():
        for file in sorted((home / "hub" / "models").glob("*/*/model.yaml")):
            with suppress(OSError):
                for place, name in _stands_for(file, file.stat().st_mtime_ns):
                    found[place].append(name)
    return found


@lru_cache(maxsize=1024)  # the folders are looked at every few seconds
def _stands_for(file: Path, _changed_ns: int) -> list[tuple[str, str]]:
    """Return pairs of a place of files and the name that stands for them."""
    import yaml  # noqa: PLC0415 - few have a catalogue

    try:
        content = yaml.safe_load(_read(file))
        name, bases = content["model"], content["base"]
        places = [base["key"] for base in bases]
        sources = [source for base in bases for source in base.get("sources", ())]
        places += [f"{one['user']}/{one['repo']}" for one in sources if "repo" in one]
        return [(place.lower(), name) for place in dict.fromkeys(places)]
    except (yaml.YAMLError, RecursionError, TypeError, KeyError, AttributeError):
        return []  # of a model that stands on another one of the catalogue, or damaged


def _read(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(MAX_FILE_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return ""
