"""The daemon's side of the MLX backend: recognises, checks and measures folders; no engine here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmx_kernel.config import models_folder
from lmx_kernel.hookspecs import hookimpl
from lmx_kernel.interfaces import Backend, Finding, JobKind, Kernel, SettingsSection
from lmx_kernel.models.headers import HeaderBackend
from lmx_kernel.types import DeviceMemory, LoadOptions, Location, MemoryEstimate, ModelCard
from lmx_mlx_backend.architectures import is_known
from lmx_mlx_backend.blas import blas_env
from lmx_mlx_backend.device import device_memory, is_cpu
from lmx_mlx_backend.folder import ModelFolder, own_files, read_folder
from lmx_mlx_backend.footprint import Footprint
from lmx_mlx_backend.settings import MlxSettings
from lmx_mlx_backend.vocabulary import VocabularyReader

if TYPE_CHECKING:
    from cyclopts import App

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
    from lmx_mlx_backend.findings import examine  # noqa: PLC0415 - the daemon does not ask

    return examine()


@hookimpl
def lmx_job_kinds(kernel: Kernel) -> Iterable[JobKind]:
    """Register ``convert``, which puts new models where LMX keeps its own."""
    from lmx_mlx_backend.conversion import Conversions  # noqa: PLC0415 - commands convert nothing

    reserve_bytes = kernel.settings(MlxSettings).reserve_bytes
    return [Conversions(kernel, models_folder(kernel.home), reserve_bytes)]


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
        """Return weights, configs and tokenizer; whatever else lies there is not the model's."""
        return tuple(path / name for name in own_files(location.files))

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
            sampling=header.sampling,
            warning=header.warning,
            capabilities=header.capabilities,
        )

    def problem(self, header: ModelFolder) -> str | None:
        """Return that no package brings the architecture."""
        if is_known(header.architecture):
            return None
        why = ", and its own code, which it would need, is not run" if header.has_own_code else ""
        return f"no architecture `{header.architecture}`{why}; a plugin may add it"

    def measure(
        self, header: ModelFolder, options: LoadOptions, settings: Mapping[str, Any]
    ) -> MemoryEstimate:
        """Return what loading takes."""
        on_cpu = is_cpu(MlxSettings(**settings).device)
        return Footprint.of(header, options, on_cpu=on_cpu).estimate()

    def vocabulary(self, card: ModelCard) -> str:
        """Return a digest of the tokens' bytes.

        :raises ModelUnusableError: the tokenizer is missing or damaged.
        """
        return self.read_in_child(VocabularyReader, card.path, str)

    def device_memory(self, settings: Mapping[str, Any]) -> DeviceMemory | None:
        """Return the memory of the GPU, its own or its part of the machine's."""
        return device_memory(MlxSettings(**settings).device)

    def worker_env(self, settings: Mapping[str, Any]) -> dict[str, str]:
        """Return what puts a fast matrix library before MLX's own on a Linux CPU."""
        return blas_env(MlxSettings(**settings).threads)
