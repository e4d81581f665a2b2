"""Sources of models, and backends, which recognise models and prepare their loading."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

from lmx_kernel.types import DeviceMemory, LoadOptions, Location, MemoryEstimate, ModelCard


class Backend(Protocol):
    """Recognises models of its format and prepares their loading. Imports no engine.

    The engine's module is registered in the group ``lmx.worker`` under the backend's name. A
    backend that is not installed, such as one of a test, names it instead: in an attribute
    ``engine_module``, as an import path.
    """

    name: str

    def identify(self, location: Location) -> Iterable[ModelCard]:
        """Return the cards of the models at ``location``, from metadata alone.

        Called in threads, for several locations at once. Damaged files give a card with a
        ``problem``, never an exception.
        """
        ...

    def verify(self, card: ModelCard) -> None:
        """Check the files again right before a load.

        :raises ModelUnusableError: missing, damaged or unsupported; native code must not see it.
        """
        ...

    def estimate(
        self, card: ModelCard, options: LoadOptions, settings: Mapping[str, Any]
    ) -> MemoryEstimate:
        """Return the memory that a load would take, from metadata alone; rather too much than too
        little.

        :param settings: the backend's own section of the config.
        :raises ModelUnusableError: the files are damaged.
        """
        ...

    def device_memory(self, settings: Mapping[str, Any]) -> DeviceMemory | None:
        """Return the memory of the device that models are loaded into; None if they may use all of
        the machine's. Called in a thread, at the start.
        """
        ...

    def worker_env(self, settings: Mapping[str, Any]) -> Mapping[str, str]:
        """Return environment variables that must be set before the engine's libraries load.

        Called in a thread, before each start of a worker.
        """
        ...


@runtime_checkable
class HasVocabulary(Protocol):
    """A backend whose models may draft for each other: its engine's module has the hook
    ``lmx_open_draft_model``.
    """

    def vocabulary(self, card: ModelCard) -> str:
        """Return a digest that is the same for two models if the same tokens have the same bytes;
        what pads the end of a vocabulary does not count. Called in a thread.

        :raises ModelUnusableError: the files are damaged.
        """
        ...


class ModelSource(Protocol):
    """A source of models on disk, such as a folder or a cache."""

    name: str

    def locations(self) -> Iterable[Location]:
        """Return the folders that may hold models. Called in a thread of its own; missing folders
        are fine. A source that names no further folder for a second is not waited for: its models
        are hidden until it has named all.
        """
        ...

    def delete(self, card: ModelCard) -> None:
        """Delete the files of a model of this source. Called in a thread.

        :raises ForbiddenError: the model is in a folder that belongs to another program.
        """
        ...
