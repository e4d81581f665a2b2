"""The daemon's half of the backend: recognises models, and estimates their memory.

It imports no engine: what a worker needs is in `lmx_kept_engine`. A model here is a file
`*.kept` with some lines of JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from attrs import frozen

from lmx_kernel.api import (
    Backend,
    DeviceMemory,
    LoadOptions,
    Location,
    MemoryEstimate,
    ModelCard,
    ModelUnusableError,
    hookimpl,
)

SUFFIX = ".kept"
MOST_BYTES = 1 << 20
BYTES_PER_TOKEN = 64
OVERHEAD_BYTES = 96 << 20  # the interpreter and numpy


@frozen(kw_only=True)
class Header:
    """What a model's file says."""

    context_length: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]
    seed: Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]


def read_header(path: Path) -> Header:
    """Read a model's file.

    :raises ModelUnusableError: it is missing or damaged; the message is for its owner.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ModelUnusableError(f"{path.name} is too large")
        return msgspec.json.decode(path.read_bytes(), type=Header)
    except OSError as error:
        raise ModelUnusableError(f"{path.name}: {error.strerror}") from error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ModelUnusableError(f"{path.name} is damaged: {error}") from error


class KeptBackend:
    """Recognises `*.kept`."""

    name = "kept"

    def identify(self, location: Location) -> Iterable[ModelCard]:
        """Yield a card for each model, those with a problem included. Called in a thread."""
        paths = [location.folder / file for file in location.files if file.endswith(SUFFIX)]
        for path in paths:
            name = location.name if len(paths) == 1 else f"{location.name}/{path.stem}"
            yield self._card(name, path)

    def verify(self, card: ModelCard) -> None:
        """Look again right before a load."""
        read_header(card.path)

    def estimate(
        self, card: ModelCard, options: LoadOptions, settings: Mapping[str, Any]
    ) -> MemoryEstimate:
        """Return what a load takes; rather too much than too little."""
        return MemoryEstimate(
            weights_bytes=card.size_bytes,
            cache_bytes=options.cache_tokens * BYTES_PER_TOKEN,
            overhead_bytes=OVERHEAD_BYTES,
        )

    def device_memory(self, settings: Mapping[str, Any]) -> DeviceMemory | None:
        """Return None: models lie in the machine's own memory."""
        return None

    def worker_env(self, settings: Mapping[str, Any]) -> Mapping[str, str]:
        """Return variables that must be set before the engine's libraries load."""
        return {}

    def _card(self, name: str, path: Path) -> ModelCard:
        context_length, problem = 1, None
        try:
            context_length = read_header(path).context_length
        except ModelUnusableError as error:
            problem = error.message
        return ModelCard(
            id=name,
            backend=self.name,
            path=path,
            format="kept",
            architecture="kept",
            size_bytes=path.stat().st_size if path.exists() else 0,
            context_length=context_length,
            files=(path,),
            problem=problem,
        )


@hookimpl
def lmx_backends() -> Iterable[Backend]:
    """Called once."""
    return [KeptBackend()]
