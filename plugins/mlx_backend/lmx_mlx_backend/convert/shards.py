"""Writes safetensors files of bounded size, so that a model need not fit in memory."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from attrs import define, field
from safetensors import SafetensorError
from safetensors.numpy import save_file

SHARD_BYTES = 1 << 30
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


@define
class ShardWriter:
    """Collects arrays and writes them when they fill a file.

    :ivar size_bytes: of all arrays so far.
    """

    folder: Path
    limit_bytes: int = SHARD_BYTES
    size_bytes: int = 0
    _pending: dict[str, Any] = field(factory=dict)
    _shards: list[list[str]] = field(factory=list)

    def add(self, name: str, array: Any) -> None:
        """Take one array; it must not change afterwards.

        :raises OSError: the folder cannot be written.
        """
        waiting = sum(other.nbytes for other in self._pending.values())
        if self._pending and waiting + array.nbytes > self.limit_bytes:
            self._flush()
        self._pending[name] = np.ascontiguousarray(array)  # the writer takes bytes as they lie
        self.size_bytes += array.nbytes

    def finish(self) -> None:
        """Write what is left; give the files their names, and an index if they are several.

        :raises OSError: the folder cannot be written.
        """
        self._flush()
        count = len(self._shards)
        if count == 1:
            self._unnamed(0).rename(self.folder / "model.safetensors")
            return
        files: dict[str, str] = {}
        for number, names in enumerate(self._shards):
            file = f"model-{number + 1:05}-of-{count:05}.safetensors"
            self._unnamed(number).rename(self.folder / file)
            files |= dict.fromkeys(names, file)
        index = {"metadata": {"total_size": self.size_bytes}, "weight_map": files}
        (self.folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))

    def _flush(self) -> None:
        path = self._unnamed(len(self._shards))
        try:
            save_file(self._pending, path, metadata={"format": "mlx"})
        except SafetensorError as error:
            raise _system_error(error) from error
        path.chmod(0o644)  # safetensors makes it its owner's alone; the daemon may be another
        self._shards.append(list(self._pending))
        self._pending = {}

    def _unnamed(self, number: int) -> Path:
        return self.folder / f"shard-{number}"


def _system_error(error: SafetensorError) -> OSError:
    """Return the system's error that the library only mentions, such as that of a full disk."""
    found = _OS_ERROR.search(str(error))
    if found is None:
        return OSError(str(error))
    number = int(found[1])
    return OSError(number, os.strerror(number))
