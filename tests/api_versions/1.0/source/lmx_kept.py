"""Finds models in a folder of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from attrs import frozen

from lmx_kernel.api import (
    ForbiddenError,
    Location,
    ModelCard,
    ModelSource,
    Settings,
    SettingsSection,
    hookimpl,
)


@frozen(kw_only=True)
class KeptSettings:
    """Section ``[kept]``.

    :ivar folder: has a folder for each model.
    """

    folder: Path = Path("/srv/models")


@frozen
class Kept:
    """The backends recognise what is in the folders; a source only lists them."""

    root: Path
    name: str = "kept"

    def locations(self) -> Iterator[Location]:
        """Yield each folder with files. Called in a thread, again and again."""
        for folder in sorted(filter(Path.is_dir, self._inside(self.root))):
            files = tuple(sorted(path.name for path in self._inside(folder) if path.is_file()))
            if files:
                yield Location(folder.name, folder, files)

    def delete(self, card: ModelCard) -> None:
        """Delete the files of a model.

        :raises ForbiddenError: one of them is elsewhere.
        """
        root = self.root.resolve()
        if not all(file.parent.resolve().is_relative_to(root) for file in card.files):
            raise ForbiddenError(f"{card.id} has files that are not below the folder of kept")
        for file in card.files:
            file.unlink(missing_ok=True)

    @staticmethod
    def _inside(folder: Path) -> list[Path]:
        try:
            return list(folder.iterdir())
        except OSError:  # it is gone, cannot be read, or is no folder
            return []


@hookimpl
def lmx_settings() -> Iterable[SettingsSection]:
    """The section ``[kept]``."""
    return [SettingsSection("kept", KeptSettings)]


@hookimpl
def lmx_model_sources(settings: Settings) -> Iterable[ModelSource]:
    """Called once."""
    return [Kept(settings.get(KeptSettings).folder.absolute())]
