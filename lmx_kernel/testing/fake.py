"""A backend for tests: models that are a page of JSON and do as they are told.

Load it with ``plugins.modules = ["lmx_kernel.testing.fake"]`` and point ``fake.folder`` at a folder
of ``NAME.fake.json`` files (:class:`~lmx_kernel.testing.fake_model.FakeModel`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from lmx_kernel.config import Settings
from lmx_kernel.errors import ModelUnusableError
from lmx_kernel.hookspecs import hookimpl
from lmx_kernel.interfaces import Backend, ModelSource, SettingsSection
from lmx_kernel.models.maker_sampling import maker_sampling
from lmx_kernel.testing.fake_model import SUFFIX, FakeModel
from lmx_kernel.types import DeviceMemory, LoadOptions, Location, MemoryEstimate, ModelCard


@frozen(kw_only=True)
class FakeSettings:
    """Section ``[fake]``.

    :ivar folder: holds the scripts.
    :ivar others: holds models of other backends, each in a folder of its own.
    """

    folder: Path | None = None
    others: Path | None = None


@hookimpl
def lmx_settings() -> Iterable[SettingsSection]:
    return [SettingsSection("fake", FakeSettings)]


@hookimpl
def lmx_backends() -> Iterable[Backend]:
    return [FakeBackend()]


@hookimpl
def lmx_model_sources(settings: Settings) -> Iterable[ModelSource]:
    own = settings.get(FakeSettings)
    return [FakeSource(own.folder, own.others)] if own.folder else []


class FakeSource:
    """One folder of scripts, and one of folders with models of other backends."""

    name = "fake"

    def __init__(self, folder: Path, others: Path | None = None) -> None:
        self._folder = folder
        self._others = others

    def locations(self) -> Iterable[Location]:
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            yield Location(path.name.removesuffix(SUFFIX), self._folder, (path.name,))
        for folder in sorted(self._others.iterdir()) if self._others else ():
            yield Location(folder.name, folder, tuple(path.name for path in folder.iterdir()))

    def delete(self, card: ModelCard) -> None:
        card.path.unlink()


class FakeBackend:
    """Recognises scripts."""

    name = "fake"
    engine_module = "lmx_kernel.testing.fake_engine"

    def identify(self, location: Location) -> Iterable[ModelCard]:
        for file in location.files:
            if file.endswith(SUFFIX):
                yield self._card(location, location.folder / file)

    def verify(self, card: ModelCard) -> None:
        if not card.path.exists():
            raise ModelUnusableError(f"{card.id}: the file is gone")

    def estimate(
        self, card: ModelCard, options: LoadOptions, settings: Mapping[str, Any]
    ) -> MemoryEstimate:
        script = FakeModel.read(card.path)
        return MemoryEstimate(weights_bytes=script.memory_bytes, cache_bytes=0, overhead_bytes=0)

    def vocabulary(self, card: ModelCard) -> str:
        return FakeModel.read(card.path).vocabulary

    def device_memory(self, settings: Mapping[str, Any]) -> DeviceMemory | None:
        return None

    def worker_env(self, settings: Mapping[str, Any]) -> Mapping[str, str]:
        return {}

    def _card(self, location: Location, path: Path) -> ModelCard:
        problem, script = None, FakeModel()
        try:
            script = FakeModel.read(path)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it is its problem
            problem = f"not a script: {error}"
        return ModelCard(
            id=location.name,
            backend=self.name,
            path=path,
            format="fake",
            architecture="fake",
            size_bytes=path.stat().st_size,
            files=(path,),
            context_length=script.context_length,
            capabilities=_capabilities(script),
            sampling=maker_sampling(script.sampling),
            problem=problem,
        )


def _capabilities(script: FakeModel) -> frozenset[str]:
    if script.embeds:
        return frozenset({"embedding"})
    return frozenset() if script.template is not None else frozenset({"completion"})
