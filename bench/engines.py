"""What the benchmarks of engines without a server share: an engine on the demo model, its process.

`THREADS` is the number of threads of an engine, by default all. With one, times are CPU times,
which hold on a busy machine too; with more, those of the clock.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lmx_gguf_backend.backend import GgufBackend
from lmx_mlx_backend.backend import MlxBackend

from lmx_kernel.types import EngineSpec, LoadOptions, Location

HOME = Path(os.environ.get("LMX_HOME") or "~/.lmx").expanduser()
GGUF = HOME / "models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf"
BACKENDS = {"gguf": GgufBackend, "mlx": MlxBackend}
OPTIONS = LoadOptions(context_length=1024, parallel=8, cache_tokens=8192)
PROMPT = "<|im_start|>user\nTell me a story about the sea.<|im_end|>\n<|im_start|>assistant\n"
THREADS = int(os.environ.get("THREADS", "0"))

now_s = time.process_time if THREADS == 1 else time.perf_counter


def for_each_backend(measure: Callable[[str], None]) -> None:
    """Measure the backends that the command line names, or all, as their workers would run.

    Each is measured in a process of its own, with the environment of a worker. The other words of
    the command line are passed on.
    """
    if name := os.environ.get("LMX_BENCH_BACKEND"):
        # the files beside this one have the names of the packages that the engines need
        sys.path[:] = [place for place in sys.path if Path(place) != Path(__file__).parent]
        measure(name)
        return
    others = [word for word in sys.argv[1:] if word not in BACKENDS]
    for name in [word for word in sys.argv[1:] if word in BACKENDS] or BACKENDS:
        own = BACKENDS[name]().worker_env({"threads": THREADS})
        env = {**os.environ, **own, "LMX_BENCH_BACKEND": name}
        subprocess.run([sys.executable, sys.argv[0], *others], env=env, check=True)


@contextmanager
def engine(name: str, *, reproducible: bool = False) -> Iterator[Any]:
    """Open an engine on the demo model."""
    with tempfile.TemporaryDirectory() as folder:
        path = GGUF if name == "gguf" else float32_model(Path(folder) / "small")
        spec = spec_of(name, path, reproducible=reproducible)
        opened = worker_module(name).lmx_open_engine(spec, lambda *_: None)
        yield opened
        opened.close()


def spec_of(name: str, path: Path, *, reproducible: bool = False) -> EngineSpec:
    """Return how the model at ``path`` is opened."""
    place = path.parent if path.is_file() else path
    names = tuple(file.name for file in place.iterdir())
    card = BACKENDS[name]().identify(Location(path.stem, place, names))[0]
    settings = {"device": "cpu"} if name == "mlx" else {"threads": THREADS}
    return EngineSpec(card=card, options=OPTIONS, settings=settings, reproducible=reproducible)


def worker_module(name: str) -> Any:
    """Return the module that a worker of this backend loads."""
    return __import__(f"lmx_{name}_backend.worker", fromlist=["worker"])


def float32_model(folder: Path, source: Path = GGUF) -> Path:
    """Write a model for MLX into a new folder, in float32, and return it."""
    options = ["--output", str(folder), "--dtype", "float32", "--dequantize"]
    command = [sys.executable, "-P", "-m", "lmx_kernel", "convert", str(source), *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder
