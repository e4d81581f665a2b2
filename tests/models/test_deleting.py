"""A model is deleted with its own files, and never while one of them is in use."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest
from attrs import evolve

from lmx_kernel import errors
from lmx_kernel.models.catalogue import Catalogue
from lmx_kernel.models.real_files import real_files
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import running_kernel, write_fake_models
from lmx_kernel.types import LoadOverrides, Location, ModelCard

LINKS = """
from pathlib import Path
from lmx_kernel.hookspecs import hookimpl
from lmx_kernel.testing.fake import FakeSource

class Links(FakeSource):
    name = "links"

@hookimpl
def lmx_model_sources(settings):
    return [Links(Path({folder!r}))]
"""


@pytest.fixture
def links(tmp_path, monkeypatch):
    """A plugin that finds the models of a further folder, which may be links to the first's."""
    folder = tmp_path / "links"
    folder.mkdir()
    (tmp_path / "links_plugin.py").write_text(LINKS.format(folder=str(folder)))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "links_plugin", raising=False)
    return folder


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
async def test_files_of_a_loaded_model_are_not_deleted_by_another_name(tmp_path, links, link):
    scripts = {"m": FakeModel()}
    write_fake_models(tmp_path, scripts)
    link(links / "other.fake.json", tmp_path / "m.fake.json")
    async with running_kernel(tmp_path, scripts, plugins=("links_plugin",)) as stage:
        await stage.kernel.load("other", LoadOverrides())
        with pytest.raises(errors.ConflictError, match="files of other, which is loaded"):
            await stage.kernel.delete("m")
        assert {card.id for card in stage.kernel.models()} == {"m", "other"}
        await stage.kernel.unload("other")
        await stage.kernel.delete("m")
        assert not (tmp_path / "m.fake.json").exists()


# --- the catalogue -------------------------------------------------------------------------------


class PairBackend:
    """Takes ``weights`` and ``config`` for a model."""

    name = "pair"

    def identify(self, location):
        own = tuple(
            location.folder / name for name in location.files if name in ("weights", "config")
        )
        if own:
            yield ModelCard(
                id=location.name,
                backend=self.name,
                path=location.folder,
                format="pair",
                architecture="pair",
                size_bytes=0,
                context_length=0,
                files=own,
            )


class Folder:
    """A folder under a name; deleting waits until it may."""

    def __init__(self, name, folder):
        self.name = name
        self.folder = folder
        self.asked = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def locations(self):
        files = tuple(sorted(path.name for path in self.folder.iterdir()))
        return [Location(self.name, self.folder, files)]

    def delete(self, card):
        self.asked.set()
        self.go_on.wait()
        for file in card.files:
            file.unlink()


@pytest.fixture
def folder(tmp_path):
    for name in ("weights", "config", "thesis.docx", ".hidden"):
        (tmp_path / name).touch()
    return tmp_path


def catalogue_of(*sources):
    catalogue = Catalogue(lambda: sources, lambda: [PairBackend()])
    catalogue.scan()
    return catalogue


async def test_what_is_no_models_stays_and_is_told(folder):
    deleted = await catalogue_of(Folder("m", folder)).delete("m", lambda card: None)
    assert deleted.card.id == "m"
    assert deleted.left == (".hidden", "thesis.docx")
    assert {path.name for path in folder.iterdir()} == {"thesis.docx", ".hidden"}


def linked(folder):
    """Return a folder with the same files under the same names."""
    other = folder.with_name(f"{folder.name}-linked")
    other.mkdir()
    for file in folder.iterdir():
        (other / file.name).hardlink_to(file)
    return other


async def test_a_model_of_two_names_is_found_by_neither_while_it_is_deleted(folder):
    one, other = Folder("a/m", folder), Folder("m2", linked(folder))
    catalogue = catalogue_of(one, other)
    seen = []

    def check(card):
        seen.append([card.id for card in catalogue.cards])
        one.go_on.clear()

    def look():
        one.asked.wait()
        seen.append([card.id for card in catalogue.cards])
        one.go_on.set()

    looking = threading.Thread(target=look)
    looking.start()
    await catalogue.delete("a/m", check)
    looking.join()
    assert seen == [["a/m", "m2"], []]


async def test_a_refusal_leaves_all_as_it_was(folder):
    catalogue = catalogue_of(Folder("a", folder), Folder("b", linked(folder)))

    def refuse(card):
        raise errors.ConflictError("in use")

    with pytest.raises(errors.ConflictError):
        await catalogue.delete("a", refuse)
    assert [card.id for card in catalogue.cards] == ["a", "b"]
    assert (folder / "weights").exists()


def test_files_are_told_apart_by_what_they_are_on_disk(folder):
    (folder / "link").symlink_to(folder / "weights")
    (folder / "up").symlink_to(folder)

    def files_of(*names):
        (card,) = PairBackend().identify(Location("m", folder, ("weights",)))
        return real_files(evolve(card, files=tuple(folder / name for name in names)))

    assert files_of("weights") == files_of("link") == files_of("up/weights")
    assert files_of("weights").isdisjoint(files_of("config", "missing"))
