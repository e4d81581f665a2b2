"""The kernel's side of the MLX backend: recognises, checks and measures folders; no engine here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from attrs import define
from cyclopts import App

from lmx_kernel.config import models_folder
from lmx_kernel.errors import ModelUnusableError
from lmx_kernel.hookspecs import hookimpl
from lmx_kernel.interfaces import Backend, Finding, JobKind, Kernel, SettingsSection
from lmx_kernel.types import LoadOptions, Location, MemoryEstimate, ModelCard
from lmx_mlx_backend.architectures import is_known
from lmx_mlx_backend.blas import blas_env
from lmx_mlx_backend.conversion import Conversions
from lmx_mlx_backend.device import device_bytes, is_cpu
from lmx_mlx_backend.findings import examine
from lmx_mlx_backend.folder import ModelFolder, read_folder
from lmx_mlx_backend.footprint import Footprint
from lmx_mlx_backend.settings import MlxSettings

NAME = "mlx"
Stamp = tuple[tuple[str, int, int], ...]


@hookimpl
def lmx_settings() -> Iterable[SettingsSection]:
    """Register the section ``[mlx]``."""
    return [SettingsSection(NAME, MlxSettings)]


@hookimpl
def lmx_backends() -> Iterable[Backend]:
    """Register the backend."""
    return [MlxBackend()]


@hookimpl
def lmx_findings() -> Iterable[Finding]:
    """Tell ``lmx doctor`` what MLX found."""
    return examine()


@hookimpl
def lmx_job_kinds(kernel: Kernel) -> Iterable[JobKind]:
    """Register ``convert``, which puts new models where LMX keeps its own."""
    return [Conversions(kernel, models_folder(kernel.home))]


@hookimpl
def lmx_commands() -> Iterable[App]:
    """Register ``lmx convert``."""
    from lmx_mlx_backend.convert.command import app  # noqa: PLC0415 - the daemon draws no bars

    return [app]


@define
class MlxBackend:
    """Recognises folders with a ``config.json`` and safetensors files."""

    name: str = NAME

    def identify(self, location: Location) -> list[ModelCard]:
        """Return the card of the model at ``location``, if one is there.

        Whether its architecture is known is asked afresh each time: a package may have come.
        """
        is_model = any(name.endswith(".safetensors") for name in location.files)
        if not is_model or "config.json" not in location.files:
            return []
        model = _read(location.folder)
        if isinstance(model, str):
            return [_damaged_card(location, model)]
        return [_card(location, model)]

    def verify(self, card: ModelCard) -> None:
        """Read config and headers again.

        :raises ModelUnusableError: missing, damaged, unsafe, or of an unknown architecture.
        """
        model = read_folder(card.path)
        problem = _problem(model.architecture)
        if problem is not None:
            raise ModelUnusableError(f"{card.id}: {problem}")

    def estimate(
        self, card: ModelCard, options: LoadOptions, settings: Mapping[str, Any]
    ) -> MemoryEstimate:
        """Return what loading takes.

        :raises ModelUnusableError: as :meth:`verify`.
        """
        model = _read(card.path)
        if isinstance(model, str):
            raise ModelUnusableError(model)
        return Footprint(model, options, is_cpu(MlxSettings(**settings).device)).estimate()

    def device_bytes(self, settings: Mapping[str, Any]) -> int | None:
        """Return the memory of the GPU, where it has its own."""
        return device_bytes(MlxSettings(**settings).device)

    def worker_env(self, settings: Mapping[str, Any]) -> dict[str, str]:
        """Return what puts a fast matrix library before MLX's own on a Linux CPU."""
        return blas_env(MlxSettings(**settings).threads)


def _read(folder: Path) -> ModelFolder | str:
    """Return the model in ``folder`` or what is wrong with it; read again when a file changed."""
    return _model_or_problem(folder, _stamp(folder))


def _stamp(folder: Path) -> Stamp:
    """Return what changes when a file of the folder does."""
    try:
        entries = [(path.name, path.stat()) for path in sorted(folder.iterdir())]
    except OSError:
        return ()
    return tuple((name, status.st_size, status.st_mtime_ns) for name, status in entries)


@lru_cache(maxsize=4096)
def _model_or_problem(folder: Path, stamp: Stamp) -> ModelFolder | str:
    try:
        return read_folder(folder)
    except ModelUnusableError as error:
        return error.message


def _problem(architecture: str) -> str | None:
    if is_known(architecture):
        return None
    return f"no architecture `{architecture}`; a plugin may add it"


def _card(location: Location, model: ModelFolder) -> ModelCard:
    return ModelCard(
        id=location.name,
        backend=NAME,
        path=location.folder,
        format=NAME,
        architecture=model.architecture,
        size_bytes=model.size_bytes,
        context_length=model.context_length,
        quantization=model.quantization,
        capabilities=_capabilities(model),
        files=_files(location),
        problem=_problem(model.architecture),
    )


def _files(location: Location) -> tuple[Path, ...]:
    """Return all files of the folder but those that are models by themselves."""
    names = sorted(name for name in location.files if not name.endswith(".gguf"))
    return tuple(location.folder / name for name in names)


def _capabilities(model: ModelFolder) -> frozenset[str]:
    names = {"completion"}
    if model.has_chat_template:
        names.add("chat")
    return frozenset(names)


def _damaged_card(location: Location, problem: str) -> ModelCard:
    return ModelCard(
        id=location.name,
        backend=NAME,
        path=location.folder,
        format=NAME,
        architecture="unknown",
        size_bytes=0,
        context_length=0,
        files=_files(location),
        problem=problem,
    )
