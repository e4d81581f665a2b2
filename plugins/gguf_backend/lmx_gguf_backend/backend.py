"""The kernel's side of the GGUF backend: recognises, checks and measures files; no engine here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from attrs import define, evolve

from lmx_gguf_backend.footprint import estimate, estimate_encoder
from lmx_gguf_backend.model_file import ModelFile, is_model_name, read_model, shard_paths
from lmx_gguf_backend.settings import GgufSettings
from lmx_kernel.errors import ModelUnusableError
from lmx_kernel.hookspecs import hookimpl
from lmx_kernel.interfaces import Backend, SettingsSection
from lmx_kernel.types import LoadOptions, Location, MemoryEstimate, ModelCard

NAME = "gguf"
COMPANIONS = ("adapter", "imatrix", "mmproj", "vocab")
"""Values of ``general.type`` of files that are no models of their own."""
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


@define
class GgufBackend:
    """Recognises ``*.gguf`` files that hold a language model."""

    name: str = NAME

    def identify(self, location: Location) -> list[ModelCard]:
        """Return a card for each model at ``location``; damaged ones carry a problem."""
        paths = [location.folder / name for name in sorted(location.files) if is_model_name(name)]
        cards = [self._card(path, location) for path in paths if self._is_model(path)]
        return _named(location.name, cards)

    def verify(self, card: ModelCard) -> None:
        """Read the headers again.

        :raises ModelUnusableError: missing, damaged, or of a kind that is not served.
        """
        model = read_model(card.path)
        if problem := _problem(model):
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
        chosen = GgufSettings(**settings)
        if _embeds(model):
            return estimate_encoder(model, options, flash_attention=chosen.flash_attention)
        return estimate(model, options, chosen.cache_type)

    def device_bytes(self, settings: Mapping[str, Any]) -> int | None:
        """Return None: what a build of the library offloads to is not known without loading it."""
        return None

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

    def _is_model(self, path: Path) -> bool:
        model = _read(path)
        if isinstance(model, str):
            return "mmproj" not in path.name.lower()
        return model.architecture != "clip" and model.text("general.type") not in COMPANIONS

    def _card(self, path: Path, location: Location) -> ModelCard:
        model = _read(path)
        files = tuple(shard for shard in shard_paths(path) if shard.name in location.files)
        if isinstance(model, str):
            return _damaged_card(path, files, model)
        architecture = model.architecture
        return ModelCard(
            id=path.stem,
            backend=NAME,
            path=path,
            format=NAME,
            architecture=architecture,
            size_bytes=model.size_bytes,
            context_length=model.integer(model.own("context_length")),
            quantization=model.quantization,
            capabilities=_capabilities(model),
            files=files,
            problem=_problem(model),
        )


def _read(path: Path) -> ModelFile | str:
    """Return the model at ``path`` or what is wrong with it; read again when a file changed."""
    return _model_or_problem(path, tuple(_stamp(shard) for shard in shard_paths(path)))


def _stamp(path: Path) -> tuple[int, int] | None:
    """Return what changes when a file does: its size and time of change, None if it is missing."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=4096)
def _model_or_problem(path: Path, stamps: tuple[object, ...]) -> ModelFile | str:
    try:
        return read_model(path)
    except ModelUnusableError as error:
        return error.message


def _damaged_card(path: Path, files: tuple[Path, ...], problem: str) -> ModelCard:
    return ModelCard(
        id=path.stem,
        backend=NAME,
        path=path,
        format=NAME,
        architecture="unknown",
        size_bytes=(_stamp(path) or (0,))[0],
        context_length=0,
        files=files,
        problem=problem,
    )


def _problem(model: ModelFile) -> str | None:
    if model.integer(model.own("pooling_type")) == RANKS:
        return "models that rank texts are not served"
    return UNSERVED.get(model.architecture)


def _embeds(model: ModelFile) -> bool:
    pools = model.integer(model.own("pooling_type")) > 0
    return pools or model.architecture in EMBEDDING_ARCHITECTURES


def _capabilities(model: ModelFile) -> frozenset[str]:
    if _embeds(model):
        return frozenset({"embedding"})
    if model.text("tokenizer.chat_template"):
        return frozenset({"chat", "completion"})
    return frozenset({"completion"})


def _named(name: str, cards: list[ModelCard]) -> list[ModelCard]:
    """Give each card the shortest id that tells it from its neighbours."""
    if len(cards) == 1:
        return [evolve(cards[0], id=name)]
    variants = Counter(card.quantization for card in cards)
    return [
        evolve(
            card,
            id=f"{name}@{card.quantization}" if _is_only(card, variants) else f"{name}@{card.id}",
        )
        for card in cards
    ]


def _is_only(card: ModelCard, variants: Counter[str | None]) -> bool:
    return card.quantization is not None and variants[card.quantization] == 1
