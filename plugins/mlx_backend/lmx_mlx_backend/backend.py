"""The daemon's side of the MLX backend: recognises, checks and measures folders; no engine here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cyclopts import App

from lmx_kernel.config import models_folder
from lmx_kernel.hookspecs import hookimpl
from lmx_kernel.interfaces import Backend, Finding, JobKind, Kernel, SettingsSection
from lmx_kernel.models.headers import HeaderBackend
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
    """Report to ``lmx doctor`` which device MLX found."""
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


class MlxBackend(HeaderBackend[ModelFolder]):
    """Recognises folders with a ``config.json`` and safetensors files."""

    name = NAME
    header_type = ModelFolder

    def paths(self, location: Location) -> list[Path]:
        """Return the folder, if it is a model's."""
        is_model = any(name.endswith(".safetensors") for name in location.files)
        return [location.folder] if is_model and "config.json" in location.files else []

    def files(self, path: Path, location: Location) -> tuple[Path, ...]:
        """Return all files of the folder but those that are models by themselves."""
        names = sorted(name for name in location.files if not name.endswith(".gguf"))
        return tuple(path / name for name in names)

    def read(self, path: Path) -> ModelFolder:
        """Read config and headers.

        :raises ModelUnusableError: missing, damaged or unsafe.
        """
        return read_folder(path)

    def card(self, header: ModelFolder) -> ModelCard:
        """Return what config and headers say."""
        return ModelCard(
            id=header.path.name,
            backend=NAME,
            path=header.path,
            format=NAME,
            architecture=header.architecture,
            size_bytes=header.size_bytes,
            context_length=header.context_length,
            quantization=header.quantization,
            capabilities=_capabilities(header),
            sampling=header.sampling,
        )

    def problem(self, header: ModelFolder) -> str | None:
        """Return that no package brings the architecture."""
        if is_known(header.architecture):
            return None
        return f"no architecture `{header.architecture}`; a plugin may add it"

    def measure(
        self, header: ModelFolder, options: LoadOptions, settings: Mapping[str, Any]
    ) -> MemoryEstimate:
        """Return what loading takes."""
        on_cpu = is_cpu(MlxSettings(**settings).device)
        return Footprint.of(header, options, on_cpu=on_cpu).estimate()

    def device_bytes(self, settings: Mapping[str, Any]) -> int | None:
        """Return the memory of the GPU, where it has its own."""
        return device_bytes(MlxSettings(**settings).device)

    def worker_env(self, settings: Mapping[str, Any]) -> dict[str, str]:
        """Return what puts a fast matrix library before MLX's own on a Linux CPU."""
        return blas_env(MlxSettings(**settings).threads)


def _capabilities(model: ModelFolder) -> frozenset[str]:
    names = {"completion"}
    if model.has_chat_template:
        names.add("chat")
    return frozenset(names)
