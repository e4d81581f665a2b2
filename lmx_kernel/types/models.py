"""Models on disk, and how they are loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attrs import field, frozen

from lmx_kernel.types.requests import SamplingRequest


@frozen
class Location:
    """A place on disk that may hold a model.

    :param name: the name of a model there, `publisher/name` or `name`.
    :param folder: the folder itself.
    :param files: the file names in it.
    :param aliases: further names of a model there: of several, that of the one called ``name``.
    """

    name: str
    folder: Path
    files: tuple[str, ...]
    aliases: tuple[str, ...] = ()


@frozen(kw_only=True)
class ModelCard:
    """The metadata of a model, known without loading it.

    :param backend: the backend that recognised it.
    :param path: the file or folder to load.
    :param size_bytes: of its weights on disk.
    :param context_length: in tokens, as trained.
    :param files: the files that the backend recognised as this model's; deleting the model deletes
        these and no others.
    :param sampling: what the model's maker chose, see
        :func:`~lmx_kernel.models.maker_sampling.maker_sampling`.
    :param problem: why it cannot be loaded; None if no problem is known.
    :param warning: what is odd about its files although it can be loaded; None if nothing is.
    :param aliases: further names that it answers to, where no model has them as its id.
    :param added_at: time of its files in seconds since the epoch; of several models with the same
        alias the earliest has it.
    """

    id: str
    backend: str
    path: Path
    format: str
    architecture: str
    size_bytes: int
    context_length: int
    quantization: str | None = None
    capabilities: frozenset[str] = frozenset()
    files: tuple[Path, ...] = ()
    sampling: SamplingRequest = field(factory=SamplingRequest)
    problem: str | None = None
    warning: str | None = None
    aliases: tuple[str, ...] = ()
    added_at: float = 0.0


@frozen(kw_only=True)
class DeletedModel:
    """A model that was deleted from disk.

    :param card: what it was.
    :param left: names of the files beside it that belong to no model and were not deleted.
    """

    card: ModelCard
    left: tuple[str, ...] = ()


@frozen
class DeviceMemory:
    """The memory of the device that models are loaded into.

    :param is_shared: it is part of the machine's memory, and ``size_bytes`` is what the system lets
        the device use of it.
    """

    size_bytes: int
    is_shared: bool = False


@frozen(kw_only=True)
class ModelName:
    """A name by which clients may ask for a model.

    :param profile: the profile whose settings such a request gets; "" for none.
    """

    name: str
    card: ModelCard
    profile: str = ""


@frozen
class SettingValue:
    """The value of one setting of a model.

    :param source: who has set it: ``load request``, ``profile NAME``, ``api``, ``config table N``,
        ``config [section]``, ``model's file`` or ``LMX``.
    """

    value: Any
    source: str


@frozen(kw_only=True)
class LoadOptions:
    """How a model is loaded.

    :param context_length: tokens that one sequence may hold.
    :param parallel: sequences that may run at once.
    :param cache_tokens: tokens of all sequences and of the prefix cache together.
    """

    context_length: int
    parallel: int
    cache_tokens: int


@frozen(kw_only=True)
class LoadOverrides:
    """How the load of a model differs from the config.

    :param context_length: tokens that one request may use; None leaves it to the config.
    :param parallel: requests that run at once; None leaves it to the config.
    :param ttl_s: unload it after this many seconds without a request; None never does.
    :param pinned: never evict it for another model.
    """

    context_length: int | None = None
    parallel: int | None = None
    ttl_s: float | None = None
    pinned: bool = False


@frozen(kw_only=True)
class MemoryEstimate:
    """The memory that a loaded model will use, in bytes."""

    weights_bytes: int
    cache_bytes: int
    overhead_bytes: int

    @property
    def total_bytes(self) -> int:
        """The sum of the parts."""
        return self.weights_bytes + self.cache_bytes + self.overhead_bytes


@frozen(kw_only=True)
class Admission:
    """Whether a model could be loaded now.

    :param available_bytes: what is available now, without unloading anything.
    :param unloads: models that would be unloaded to make room, in this order.
    :param problem: why it cannot be loaded; None if it can.
    """

    model: str
    options: LoadOptions
    estimate: MemoryEstimate
    available_bytes: int
    budget_bytes: int
    unloads: tuple[str, ...] = ()
    problem: str | None = None


@frozen(kw_only=True)
class PrefixStoreOptions:
    """Where a worker keeps states of its model on disk, see :mod:`lmx_kernel.prefixes`.

    :param limit_bytes: of all models together; None is a share of the free disk.
    :param ttl_s: what was not used for so long is deleted; 0 never is.
    """

    folder: Path
    limit_bytes: int | None = None
    ttl_s: float = 0.0


@frozen(kw_only=True)
class PrefixUsage:
    """What is kept on disk of a model's prompts and answers.

    :param model: its id in the catalogue; it may have been deleted since.
    :param entries: files; each holds the state of a block of tokens.
    :param used_at: when one of them was last used, in seconds since the epoch.
    """

    model: str
    entries: int = 0
    size_bytes: int = 0
    used_at: float = 0.0


@frozen(kw_only=True)
class EngineSpec:
    """What a worker needs to open an engine: the card, the options, the backend's settings.

    :param memory_bytes: what the ledger holds for it; 0 where nothing is reserved.
    :param engine_module: import path of the module that opens the engine; "" where it is registered
        in the group ``lmx.worker``.
    :param chat_template: Jinja source that replaces the model's own; "" for its own.
    :param chat_format: the name of the chat format; "" for the one that fits the template.
    :param constraints: the section ``constraints`` of the config, for the plugin that constrains
        answers; empty where no plugin has one.
    :param prefix_store: None keeps nothing on disk.
    :param drafts: the names of the sources of drafts; empty for no drafts, None where the owner
        leaves it to the engine. A model among them is known by its id.
    :param draft_model: what is loaded beside the model to draft for it; None for none. It is asked
        for requests that name it, and for all where its id is in ``drafts``.
    :param reproducible: answers must not depend on what runs beside them, nor on what was cached;
        see :class:`lmx_kernel.engine.numerics.Numerics`.
    """

    card: ModelCard
    options: LoadOptions
    settings: dict[str, Any] = field(factory=dict)
    memory_bytes: int = 0
    engine_module: str = ""
    chat_template: str = ""
    chat_format: str = ""
    constraints: dict[str, Any] = field(factory=dict)
    prefix_store: PrefixStoreOptions | None = None
    drafts: tuple[str, ...] | None = None
    draft_model: EngineSpec | None = None
    reproducible: bool = False


@frozen(kw_only=True)
class EngineLimits:
    """The limits of an open engine; see :class:`LoadOptions`."""

    context_length: int
    max_sequences: int
    cache_tokens: int
