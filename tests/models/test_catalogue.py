"""What a scan of the disk shows, and to whom."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from attrs import define, evolve, field

from lmx_kernel.errors import ModelNotFoundError
from lmx_kernel.models import catalogue as catalogue_module
from lmx_kernel.models.catalogue import Catalogue
from lmx_kernel.types import Location, ModelCard


@define
class SlowSource:
    """Says what lies there when a look begins, once it may."""

    name: str = "slow"
    there: list[str] = field(factory=list)
    looks: list[int] = field(factory=list)
    go_on: threading.Event = field(factory=threading.Event)

    def locations(self):
        found = [Location(name, Path(), ()) for name in self.there]
        self.looks.append(len(found))
        self.go_on.wait()
        return found


class AnyBackend:
    name = "any"

    def identify(self, location):
        return [
            ModelCard(
                id=location.name,
                backend="any",
                path=location.folder,
                format="any",
                architecture="any",
                size_bytes=0,
                context_length=0,
            )
        ]


@pytest.fixture
def source():
    return SlowSource()


@pytest.fixture
def catalogue(source):
    return Catalogue(lambda: [source], lambda: [AnyBackend()])


async def test_a_model_that_comes_during_a_scan_is_found_by_who_asks_after_it(catalogue, source):
    early = asyncio.create_task(catalogue.find_fresh("model"))
    while not source.looks:
        await asyncio.sleep(0)
    source.there.append("model")
    late = asyncio.create_task(catalogue.find_fresh("model"))
    source.go_on.set()
    with suppress(ModelNotFoundError):  # or it saw what the second scan found
        await early
    assert (await late).id == "model"


async def test_who_asks_at_once_shares_a_scan(catalogue, source):
    source.go_on.set()
    await asyncio.gather(*(catalogue.refresh() for _ in range(100)))
    assert len(source.looks) == 1


@define
class Folder:
    """A source of one folder, by the path that it was given."""

    path: Path
    name: str = "folder"
    files: tuple[str, ...] = ("weights",)
    model: str = "model"

    def locations(self):
        return [Location(self.model, self.path, self.files)]


class IgnoringCase(type(Path())):
    """A path on a disk that does not tell upper from lower case, as on most Macs."""

    def stat(self, **options):
        return Path(str(self).lower()).stat(**options)


def test_a_folder_that_is_found_by_two_names_is_one_model(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    (tmp_path / "link").symlink_to(disk)
    paths = [disk, tmp_path / "link", IgnoringCase(tmp_path / "Disk")]
    sources = [Folder(path, model=f"model-{n}") for n, path in enumerate(paths)]
    catalogue = Catalogue(lambda: sources, lambda: [AnyBackend()])
    catalogue.scan()
    assert [card.id for card in catalogue.cards] == ["model-0"]
    assert catalogue.find("MODEL-0").path == disk


def test_files_of_one_folder_may_be_several_models(tmp_path):
    sources = [Folder(tmp_path, files=(name,), model=name) for name in ("a", "A")]
    catalogue = Catalogue(lambda: sources, lambda: [AnyBackend()])
    catalogue.scan()
    assert [card.id for card in catalogue.cards] == ["A", "a"]


def test_a_name_is_found_however_its_accents_are_encoded(tmp_path):
    """Some disks of macOS decompose names; clients send what people type."""
    decomposed, composed = "mode\u0300le", "mod\u00e8le"
    catalogue = Catalogue(lambda: [Folder(tmp_path, model=decomposed)], lambda: [AnyBackend()])
    catalogue.scan()
    for name in (composed, composed.upper(), decomposed):
        assert catalogue.find(name).id == decomposed


async def test_an_unknown_name_does_not_wait_for_a_disk_that_does_not_answer(
    catalogue, source, monkeypatch
):
    monkeypatch.setattr(catalogue_module, "LOOK_S", 0.01)
    with pytest.raises(ModelNotFoundError):
        await catalogue.find_fresh("model")
    assert not catalogue.is_scanned  # the scan goes on
    source.there.append("model")
    source.go_on.set()
    await catalogue.refresh()
    assert (await catalogue.find_fresh("model")).id == "model"


async def test_who_asks_after_a_slow_scan_does_not_wait_for_the_pause_after_it(
    catalogue, source, monkeypatch
):
    source.go_on.set()
    catalogue.scan()
    monkeypatch.setattr(catalogue_module, "LOOK_S", 0.01)
    catalogue._next_scan_at += 3600
    with pytest.raises(ModelNotFoundError):
        await catalogue.find_fresh("model")
    assert len(source.looks) == 1


def test_a_model_answers_to_the_further_names_of_its_place():
    class Named(AnyBackend):
        def identify(self, location):
            (card,) = super().identify(location)
            return [
                evolve(card, aliases=("maker/one@Q4", "elsewhere")),
                evolve(card, id="maker/one@Q8", aliases=("maker/one-other",)),
            ]

    @define
    class Source:
        name: str = "source"

        def locations(self):
            return [Location("maker/one", Path("/"), (), ("short", "other/name"))]

    catalogue = Catalogue(lambda: [Source()], lambda: [Named()])
    catalogue.scan()
    for name in ("short", "SHORT@q4", "other/name", "other/name@Q4", "elsewhere"):
        assert catalogue.find(name).id == "maker/one", name
    assert catalogue.find("short@q8").id == "maker/one@Q8"
    for name in ("short-other", "shortelsewhere"):
        with pytest.raises(ModelNotFoundError):
            catalogue.find(name)


def test_the_number_of_an_instance_names_the_model_itself(tmp_path):
    sources = []
    for name in ("maker/one", "two:2"):
        path = tmp_path / str(len(sources))
        path.mkdir()
        sources.append(Folder(path, model=name))
    catalogue = Catalogue(lambda: sources, lambda: [AnyBackend()])
    catalogue.scan()
    assert {catalogue.find(f"{name}:2").id for name in ("maker/one", "One")} == {"maker/one"}
    assert catalogue.find("two:2").id == "two:2"
    for name in ("maker/one:0", "maker/one:x", "maker/one:100", "maker/one:2:2", "three:2"):
        with pytest.raises(ModelNotFoundError):
            catalogue.find(name)
