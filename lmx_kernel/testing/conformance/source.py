"""What LMX expects of a source of models."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import pytest

from lmx_kernel.errors import ForbiddenError
from lmx_kernel.interfaces import ModelSource
from lmx_kernel.kernel.boot import Booted
from lmx_kernel.plugins.manager import Plugins
from lmx_kernel.testing.conformance.plugin import PluginConformance, check_active, check_name
from lmx_kernel.testing.conformance.router import make_card
from lmx_kernel.types import Location

MANY, MOST_S = 1000, 1.0
FILES = ("config.json", "weights.bin")


class SourceConformance(PluginConformance):
    """For a plugin with the hook ``lmx_model_sources``. :meth:`config` makes it look below
    ``root(folder)``, which does not exist at first.

    :cvar deletes: whether the source deletes models; else it refuses to.
    """

    deletes: ClassVar[bool] = True
    source_name: ClassVar[str] = ""

    def root(self, folder: Path) -> Path:
        """Return the folder that the source looks in."""
        return folder / "models"

    def put(self, folder: Path, name: str) -> Path:
        """Lay out a model called ``name`` with the files :data:`FILES`, and return its folder."""
        place = self.root(folder) / name
        place.mkdir(parents=True)
        for file in FILES:
            (place / file).write_text(name)
        return place

    @pytest.fixture
    def source(self, booted: Booted, plugins: Plugins) -> ModelSource:
        """The source that is tried: ``source_name``, or the first of the plugin."""
        sources = plugins.model_sources(booted.settings)
        check_active(plugins, self.module)
        found = self.own(plugins, "lmx_model_sources", sources)
        return next(one for one in found if self.source_name in ("", one.name))

    def test_it_has_a_name(self, source: ModelSource) -> None:
        check_name(source.name)

    def test_it_finds_models(self, source: ModelSource, folder: Path) -> None:
        for name in ("one", "two", "Ünïcode name"):
            self.put(folder, name)
        found = locations_of(source)
        assert set(found) == {"one", "two", "Ünïcode name"}
        for location in found.values():
            assert set(location.files) == set(FILES)

    def test_it_looks_each_time(self, source: ModelSource, folder: Path) -> None:
        self.put(folder, "one")
        assert set(locations_of(source)) == {"one"}
        place = self.put(folder, "two")
        assert set(locations_of(source)) == {"one", "two"}
        for file in FILES:
            (place / file).unlink()
        place.rmdir()
        assert set(locations_of(source)) == {"one"}
        again = self.put(folder, "again")
        (again / "more.txt").write_text("x")
        assert "more.txt" in locations_of(source)["again"].files

    def test_a_missing_folder_is_fine(self, source: ModelSource, folder: Path) -> None:
        assert not self.root(folder).exists()
        assert locations_of(source) == {}
        assert not self.root(folder).exists(), "a look changes nothing"

    def test_a_file_in_its_place_is_fine(self, source: ModelSource, folder: Path) -> None:
        self.root(folder).parent.mkdir(parents=True, exist_ok=True)
        self.root(folder).write_text("a file")
        assert locations_of(source) == {}

    def test_what_cannot_be_read_is_passed_over(
        self, source: ModelSource, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.put(folder, "one")
        self.put(folder, "locked")
        for name in ("scandir", "listdir"):
            monkeypatch.setattr(os, name, _refusing(getattr(os, name)))
        assert set(locations_of(source)) == {"one"}

    def test_links_do_not_lead_it_in_circles(self, source: ModelSource, folder: Path) -> None:
        place = self.put(folder, "one")
        (place / "up").symlink_to(self.root(folder))
        (self.root(folder) / "self").symlink_to("self")
        (self.root(folder) / "broken").symlink_to("nowhere")
        found = locations_of(source)
        assert "one" in found
        assert len(found) < 10, sorted(found)
        assert set(found["one"].files) == set(FILES), "a folder is no file of the model"

    def test_empty_folders_are_no_models(self, source: ModelSource, folder: Path) -> None:
        self.put(folder, "one")
        (self.root(folder) / "empty").mkdir()
        assert set(locations_of(source)) == {"one"}

    def test_many_folders_take_no_time(self, source: ModelSource, folder: Path) -> None:
        for number in range(MANY):
            self.put(folder, f"model-{number}")
        start_s = time.process_time()
        assert len(locations_of(source)) == MANY
        took_s = time.process_time() - start_s
        assert took_s < MOST_S, f"{MANY} folders take {took_s:.1f} s"

    def test_it_deletes_a_model_and_nothing_else(self, source: ModelSource, folder: Path) -> None:
        place, other = self.put(folder, "one"), self.put(folder, "two")
        (place / "notes.txt").write_text("mine")
        files = tuple(place / file for file in FILES)
        card = make_card("one", files=files)
        if not self.deletes:
            with pytest.raises(ForbiddenError):
                source.delete(card)
            assert all(file.exists() for file in files)
            return
        source.delete(card)
        assert not any(file.exists() for file in files)
        assert (place / "notes.txt").read_text() == "mine"
        assert all((other / file).exists() for file in FILES)
        source.delete(card)  # a second time, while another program deletes it

    def test_it_deletes_nothing_of_others(self, source: ModelSource, folder: Path) -> None:
        """A card with a file elsewhere, by its path, by ``..`` or by a link to a folder."""
        place = self.put(folder, "one")
        outside = folder / "elsewhere"
        outside.mkdir()
        (outside / "theirs.bin").write_text("theirs")
        (place / "linked").symlink_to(outside)
        up = Path(*[".."] * (len(place.relative_to(folder).parts)))
        for path in (
            outside / "theirs.bin",
            place / up / "elsewhere" / "theirs.bin",
            place / "linked" / "theirs.bin",
        ):
            with pytest.raises(ForbiddenError):
                source.delete(make_card("one", files=(place / FILES[0], path)))
            assert (outside / "theirs.bin").read_text() == "theirs"
            assert (place / FILES[0]).exists(), "what cannot be deleted as a whole is left alone"


def locations_of(source: ModelSource) -> Mapping[str, Location]:
    """Return what a source finds, by name, after checking it."""
    found: dict[str, Location] = {}
    for location in source.locations():
        assert isinstance(location, Location)
        assert location.name not in found, f"{location.name} is there twice"
        found[location.name] = location
        check_location(location)
    return found


def check_location(location: Location) -> None:
    """Check what the backends get."""
    check_name(location.name)
    path = PurePosixPath(location.name)
    assert not path.is_absolute(), location.name
    assert ".." not in path.parts, location.name
    assert isinstance(location.folder, Path)
    assert location.folder.is_absolute(), f"{location.folder} is not absolute"
    assert isinstance(location.files, tuple), "files is a tuple of names"
    assert location.files, f"{location.name} has no files"
    for file in location.files:
        assert isinstance(file, str), f"{file!r} is no name"
        assert "/" not in file, f"{file} is a path"
        assert (location.folder / file).is_file(), f"{location.folder / file} is no file"


def _refusing(look: Callable[..., Any]) -> Callable[..., Any]:
    def refuse(folder: Any = ".") -> Any:
        if any("locked" in part for part in Path(folder).parts):
            raise PermissionError(13, "Permission denied", str(folder))
        return look(folder)

    return refuse
