"""Headers are read once, and again when a file changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lmx_kernel.errors import ModelUnusableError
from lmx_kernel.models import headers
from lmx_kernel.models.headers import HeaderBackend
from lmx_kernel.types import LoadOptions, Location, MemoryEstimate, ModelCard

OPTIONS = LoadOptions(context_length=8, parallel=1, cache_tokens=8)


class TextBackend(HeaderBackend[str]):
    """A model is a text file, and its text the header."""

    name = "text"

    def __init__(self):
        super().__init__()
        self.reads = []
        self.served = True

    def paths(self, location):
        return [location.folder / name for name in location.files]

    def files(self, path, location):
        return (path,)

    def read(self, path):
        self.reads.append(path.name)
        text = path.read_text() if path.exists() else ""
        if not text:
            raise ModelUnusableError(f"{path.name}: empty")
        return text

    def card(self, header):
        return ModelCard(
            id="",
            backend="text",
            path=Path(),
            format="text",
            architecture=header,
            size_bytes=len(header),
            context_length=1,
        )

    def problem(self, header):
        return None if self.served else "not served"

    def measure(self, header, options, settings):
        return MemoryEstimate(weights_bytes=len(header), cache_bytes=0, overhead_bytes=0)


@pytest.fixture
def backend():
    return TextBackend()


@pytest.fixture
def identify(backend, tmp_path):
    """Writes a file and returns the card of it."""

    def identify(text=None):
        if text is not None:
            (tmp_path / "model").write_text(text)
        [card] = backend.identify(Location("maker/model", tmp_path, ("model",)))
        return card

    return identify


def test_headers_are_read_once(backend, identify, tmp_path):
    card = identify("hello")
    assert (card.id, card.architecture, card.problem) == ("maker/model", "hello", None)
    assert card.files == (tmp_path / "model",)
    assert identify() == card
    assert backend.estimate(card, OPTIONS, {}).weights_bytes == 5
    assert backend.reads == ["model"]


def test_a_changed_file_is_read_again(backend, identify, tmp_path):
    identify("hello")
    assert identify("other text").architecture == "other text"
    os.utime(tmp_path / "model", ns=(0, 0))
    card = identify()
    assert backend.reads == ["model"] * 3
    (tmp_path / "model").unlink()
    with pytest.raises(ModelUnusableError, match="model: empty"):
        backend.estimate(card, OPTIONS, {})


def test_a_damaged_file_has_a_card_and_is_not_read_at_each_scan(backend, identify, tmp_path):
    card = identify("")
    assert (card.problem, card.architecture, card.size_bytes) == ("model: empty", "unknown", 0)
    assert (card.id, card.path) == ("maker/model", tmp_path / "model")
    assert identify() == card
    with pytest.raises(ModelUnusableError, match="model: empty"):
        backend.estimate(card, OPTIONS, {})
    assert backend.reads == ["model"]
    assert identify("hello").problem is None


def test_whether_a_model_is_served_is_asked_each_time(backend, identify):
    backend.served = False
    assert identify("hello").problem == "not served"
    backend.served = True
    assert identify().problem is None
    assert backend.reads == ["model"]


def test_verifying_reads_in_any_case(backend, identify):
    card = identify("hello")
    backend.verify(card)
    assert backend.reads == ["model"] * 2
    backend.served = False
    with pytest.raises(ModelUnusableError, match="maker/model: not served"):
        backend.verify(card)


def test_the_oldest_headers_are_forgotten(backend, tmp_path, monkeypatch):
    monkeypatch.setattr(headers, "MOST_REMEMBERED", 2)
    for name in "abc":
        (tmp_path / name).write_text(name)
    for names in ("ab", "a", "c", "a", "b"):
        backend.identify(Location("x", tmp_path, tuple(names)))
    assert "".join(backend.reads) == "abcb"
