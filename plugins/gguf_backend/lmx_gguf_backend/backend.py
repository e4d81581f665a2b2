"""The daemon's side of the GGUF backend: recognises, checks and measures files; no engine here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lmx_gguf_backend.device import device_memory
from lmx_gguf_backend.footprint import estimate, estimate_encoder
from lmx_gguf_backend.model_file import (
    CAPABILITIES,
    ModelFile,
    is_model_name,
    read_model,
    shard_paths,
)
from lmx_gguf_backend.naming import named
from lmx_gguf_backend.settings import GgufSettings
from lmx_kernel.errors import ModelUnusableError
from lmx_kernel.hookspecs import hookimpl
from lmx_kernel.interfaces import Backend, SettingsSection
from lmx_kernel.models.headers import Damaged, HeaderBackend
from lmx_kernel.types import DeviceMemory, LoadOptions, Location, MemoryEstimate, ModelCard

NAME = "gguf"
EMBEDDING_ARCHITECTURES = ("bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3",
                           "modern-bert", "neo-bert", "eurobert", "gemma-embedding")  # fmt: skip
UNSERVED = {
    "t5": "encoder-decoder models are not served",
    "t5encoder": "encoder-only models are not served",
    "dream": "diffusion models are not served",
    "llada": "diffusion models are not served",
    "llada-moe": "diffusion models are not served",
    "wavtokenizer-dec": "audio models are not served",
}
RANKS = 4
"""The value of ``pooling_type`` of models that rank texts; it is 0 where nothing is pooled."""


@hookimpl
def lmx_settings() -> Iterable[SettingsSection]:
    """Register the section ``[gguf]``."""
    return [SettingsSection(NAME, GgufSettings)]


@hookimpl
def lmx_backends() -> Iterable[Backend]:
    """Register the backend."""
    return [GgufBackend()]


class GgufBackend(HeaderBackend[ModelFile]):
    """Recognises ``*.gguf`` files that hold a language model."""

    name = NAME
    header_type = ModelFile

    def identify(self, location: Location) -> list[ModelCard]:
        """Return a card for each model at ``location``; damaged ones carry a problem."""
        return named(location.name, super().identify(location))

    def paths(self, location: Location) -> list[Path]:
        """Return the models' files, of several parts the first."""
        paths = [location.folder / name for name in sorted(location.files) if is_model_name(name)]
        return [path for path in paths if self._is_model(path, location)]

    def _is_model(self, path: Path, location: Location) -> bool:
        model = self.header(path, self.files(path, location))
        if isinstance(model, Damaged):
            return "mmproj" not in path.name.lower()
        return not model.is_companion

    def files(self, path: Path, location: Location) -> tuple[Path, ...]:
        """Return the parts that are there; some sources give each file a location of its own."""
        parts = shard_paths(path)
        names = set(location.files)
        return tuple(part for part in parts if part.name in names or part.exists())

    def read(self, path: Path) -> ModelFile:
        """Read the headers of all parts.

        :raises ModelUnusableError: a part is missing, or native code must not see it.
        """
        return read_model(path)

    def card(self, header: ModelFile) -> ModelCard:
        """Return what the metadata says."""
        return ModelCard(
            id=header.path.stem,
            backend=NAME,
            path=header.path,
            format=NAME,
            architecture=header.architecture,
            size_bytes=header.size_bytes,
            context_length=header.integer(header.own("context_length")),
            quantization=header.quantization,
            capabilities=_capabilities(header),
            sampling=header.sampling,
        )

    def problem(self, header: ModelFile) -> str | None:
        """Return why a kind of model is not served."""
        if header.integer(header.own("pooling_type")) == RANKS:
            return "models that rank texts are not served"
        return UNSERVED.get(header.architecture)

    def measure(
        self, header: ModelFile, options: LoadOptions, settings: Mapping[str, Any]
    ) -> MemoryEstimate:
        """Return what loading takes."""
        chosen = GgufSettings(**settings)
        if _embeds(header):
            return estimate_encoder(header, options, flash_attention=chosen.flash_attention)
        return estimate(header, options, chosen.cache_type)

    def vocabulary(self, card: ModelCard) -> str:
        """Return a digest of the tokens' bytes.

        :raises ModelUnusableError: the files are missing or damaged.
        """
        header = self.header(card.path, card.files)
        if isinstance(header, Damaged):
            raise ModelUnusableError(header.reason)
        return header.vocabulary_digest

    def device_memory(self, settings: Mapping[str, Any]) -> DeviceMemory | None:
        """Return what the GPU may use of the machine's memory, where they share it."""
        return device_memory(GgufSettings(**settings))

    def worker_env(self, settings: Mapping[str, Any]) -> dict[str, str]:
        """Return what the native library reads when it is loaded.

        An abort would start a debugger for its backtrace, hence GGML_NO_BACKTRACE.

        Threads that wait spin for GOMP_SPINCOUNT rounds before they sleep. Measured on 2 cores,
        SmolLM2-135M Q4_1, 2 threads, one stream, tok/s, two runs (the second column beside two
        busy processes): unset 122, 108 | 30, 0.3; passive or 0 40-50 | 27, 33; 300 124, 105 |
        52, 45; 1000 133, 118 | 45, 50; 2000 131, 130 | 19, 52; 4000 124, 126 | 52, 54; 10000
        113 | 4.5. Four streams at 1000: 181 (unset 179) | 86 (unset 1.3). A thousand rounds are
        a few microseconds, the usual wait inside a step, so a quiet machine loses nothing.
        """
        return {"GGML_NO_BACKTRACE": "1", "GOMP_SPINCOUNT": "1000"}


def _embeds(model: ModelFile) -> bool:
    pools = model.integer(model.own("pooling_type")) > 0
    return pools or model.architecture in EMBEDDING_ARCHITECTURES


def _capabilities(model: ModelFile) -> frozenset[str]:
    if _embeds(model):
        return frozenset({"embedding"})
    return frozenset((model.text(CAPABILITIES) or "").split())
