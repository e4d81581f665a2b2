"""llama.cpp in this process: its log, and its models.

Import this module only where the environment of ``GgufBackend.worker_env`` is set.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import llama_cpp as llama
from attrs import define, field

from lmx_gguf_backend.settings import GgufSettings
from lmx_kernel.errors import ModelUnusableError

WARNING, ERROR = 3, 4
logger = logging.getLogger("lmx.gguf")


@define
class Log:
    """What the library says. Keeps its last errors, since its calls return only NULL."""

    errors: deque[str] = field(factory=lambda: deque(maxlen=3))
    _recorders: list[list[str]] = field(factory=list)

    def write(self, level: int, text: bytes, _: object) -> None:
        """Take one line; called by the library, from any of its threads."""
        line = text.decode("utf-8", errors="replace").strip()
        for recorder in self._recorders:
            recorder.append(line)
        if level == ERROR:
            self.errors.append(line)
        if level in (WARNING, ERROR):
            logger.debug("%s", line)

    @contextmanager
    def recording(self) -> Iterator[list[str]]:
        """Collect every line of the block."""
        lines: list[str] = []
        self._recorders.append(lines)
        try:
            yield lines
        finally:
            self._recorders.remove(lines)

    def reason(self, path: Path) -> str:
        """Return the first error since the last call, without the folder of ``path``."""
        line = self.errors[0] if self.errors else "llama.cpp gave no reason"
        self.errors.clear()
        return line.partition(": ")[2].replace(str(path.parent) + "/", "") or line


LOG = Log()
_callback = llama.llama_log_callback(LOG.write)  # kept: the library keeps only its address
llama.llama_log_set(_callback, None)
llama.llama_backend_init()


def has_gpu() -> bool:
    """Whether the library was built for a GPU."""
    return bool(llama.llama_supports_gpu_offload())


def system_info() -> str:
    """Return which instructions the library was built for: its kernels differ by them."""
    return bytes(llama.llama_print_system_info()).decode()


@define
class Model:
    """Loaded weights and their vocabulary."""

    handle: int
    path: Path

    @classmethod
    def open(
        cls,
        path: Path,
        settings: GgufSettings,
        progress: Callable[[float], None] = lambda share: None,
        *,
        measure_only: bool = False,
        as_stored: bool = False,
    ) -> Model:
        """Load the model at ``path``; the caller checked the file.

        :param measure_only: allocate nothing. Such a model serves to size a context, no more.
        :param as_stored: do not rearrange weights for kernels of 4 rows.
        :raises ModelUnusableError: the library refused it; its own reason is the message.
        """
        params = llama.llama_model_default_params()
        params.n_gpu_layers = settings.gpu_layers
        params.no_alloc = measure_only
        params.use_extra_bufts = not as_stored
        # no_alloc aborts on mapped files
        mapped = settings.mmap and not measure_only
        params.load_mode = llama.LLAMA_LOAD_MODE_MMAP if mapped else llama.LLAMA_LOAD_MODE_NONE

        def report(share: float, _: object) -> bool:
            progress(share)
            return True  # where progress raises, ctypes returns False, and the load ends

        callback = llama.llama_progress_callback(report)
        params.progress_callback = callback
        LOG.errors.clear()
        handle = llama.llama_model_load_from_file(os.fsencode(path), params)
        if not handle:
            raise ModelUnusableError(f"{path.name}: {LOG.reason(path)}")
        return cls(handle, path)

    @property
    def vocabulary(self) -> int:
        """The library's handle of the vocabulary."""
        return int(llama.llama_model_get_vocab(self.handle))

    @property
    def size_bytes(self) -> int:
        """Of all weights."""
        return int(llama.llama_model_size(self.handle))

    @property
    def can_share(self) -> bool:
        """Whether a sequence may take over a part of another: a recurrent state has no parts."""
        recurrent = llama.llama_model_is_recurrent(self.handle)
        return not (recurrent or llama.llama_model_is_hybrid(self.handle))

    @property
    def can_continue(self) -> bool:
        """Whether it continues text token by token: encoders and diffusion models do not."""
        other = llama.llama_model_has_encoder(self.handle)
        return not (other or llama.llama_model_is_diffusion(self.handle))

    def metadata(self, key: str) -> str | None:
        """Return a value of the file's metadata as text, or None."""
        name, size = key.encode(), 1 << 10
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = llama.llama_model_meta_val_str(self.handle, name, buffer, size)
            if length < 0:
                return None
            if length < size:
                return buffer.value.decode("utf-8", errors="replace")
            size = length + 1

    def close(self) -> None:
        """Free the weights; contexts on them must be closed before."""
        if self.handle:
            llama.llama_model_free(self.handle)
            self.handle = 0
