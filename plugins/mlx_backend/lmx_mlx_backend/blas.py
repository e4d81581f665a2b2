"""A faster matrix library for MLX on a Linux CPU.

The mlx-cpu wheel brings the reference BLAS, about 20 times slower than OpenBLAS at a prompt. MLX
calls three functions of it, so a library that exports these and is loaded first takes its place.
The wheel scipy-openblas32 has them under other names; a library of three functions, compiled once,
passes them on.

Products of few rows, which are all that decoding steps have, it computes itself (``few_rows.c``, on
processors with AVX2): each number is one sum in one order, so it depends neither on the other rows
nor on the cells behind a sequence's last, and the matrix is not copied first. CPU ms of one thread
for the linear layers of SmolLM2-135M with 1, 2, 4 and 8 rows: 26, 31, 42 and 63; as OpenBLAS's
matrix products 70, 70, 61 and 74, as its matrix-vector products 31, 46, 77 and 130. Attention's
values go to the latter in blocks of 64 cells (1,536 cells of 64 numbers: 6 us instead of 26 us).
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import structlog

from lmx_kernel.config import find_home
from lmx_kernel.engine.cores import usable_cores
from lmx_kernel.processes.environment import child_environment

log = structlog.get_logger(__name__)

COMPILE_S = 30
SEPARATORS = frozenset(" :")

SOURCE = Path(__file__).with_name("few_rows.c")


def blas_env(threads: int) -> dict[str, str]:
    """Return the variables that put OpenBLAS in front of MLX's own; none where it does not apply.

    Threads that wait spin for 2^OPENBLAS_THREAD_TIMEOUT cycles, by default 2^26. Measured on
    SmolLM2-135M, 2 threads on 2 cores, ms for a prompt of 32 rows (median of 6), alone | beside
    two busy processes: default 130 | 608; 12 127 | 321. A step of 8 rows: 80 | 292; 73 | 243.

    :param threads: 0 takes one for each physical core.
    """
    if sys.platform != "linux":
        return {}
    number = str(threads or usable_cores())
    library = find_blas()
    preload = [str(library), os.environ.get("LD_PRELOAD", "")]
    env = {"LD_PRELOAD": ":".join(filter(None, preload))} if library is not None else {}
    waits = {"OPENBLAS_THREAD_TIMEOUT": "12", "GOMP_SPINCOUNT": "1000"}
    return env | waits | {"OPENBLAS_NUM_THREADS": number}


@cache
def find_blas() -> Path | None:
    """Return the library to load first; says once what is missing, and then returns None."""
    try:
        return _shim()
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        log.warning("MLX runs without OpenBLAS: prompts take many times longer", reason=str(error))
        return None


def _shim() -> Path:
    """Return the small library, compiled unless it is there already.

    :raises RuntimeError: with what to install.
    """
    spec = find_spec("scipy_openblas32")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("pip install scipy-openblas32")
    folder = Path(spec.submodule_search_locations[0]) / "lib"
    library = next(folder.glob("libscipy_openblas*.so"), None)
    if library is None:
        raise RuntimeError("pip install --force-reinstall scipy-openblas32")
    key = _digest(f"{library}\n{SOURCE.read_text()}")
    target = _cache_folder() / f"openblas-{key}.so"
    if not target.exists():
        _compile(library, target)
    return target


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _cache_folder() -> Path:
    """Return where the small library lies; for this process alone where LMX's own folder will not
    do, since the loader takes a space or a colon for the end of a path.

    :raises RuntimeError: the folder for temporary files will not do either.
    """
    own = find_home() / "cache"
    if SEPARATORS.isdisjoint(str(own)):
        return own
    if not SEPARATORS.isdisjoint(tempfile.gettempdir()):
        raise RuntimeError("LMX_HOME and TMPDIR must not both contain a space or a colon")
    folder = tempfile.mkdtemp(prefix="lmx-")  # of one's own: who can write there runs in workers
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _compile(library: Path, target: Path) -> None:
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        raise RuntimeError("install a C compiler (Debian: apt install gcc)")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        built = Path(folder) / "shim.so"
        options = ["-shared", "-fPIC", "-O3", str(SOURCE), "-o", str(built), str(library)]
        command = [compiler, *options, f"-Wl,-rpath,{library.parent}"]
        try:
            _run([*command, "-fopenmp"])
        except RuntimeError:  # a compiler without OpenMP: one thread computes products of few rows
            _run(command)
        built.replace(target)


def _run(command: list[str]) -> None:
    done = subprocess.run(  # noqa: S603 - a compiler of this machine
        command, env=child_environment(), capture_output=True, timeout=COMPILE_S, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr.decode(errors='replace')[-300:]}")


def matrix_library() -> str:
    """Return which OpenBLAS this process computes with, for which processor, and how its functions
    are called; "" for MLX's own library. Its kernels differ by processor.
    """
    if "openblas" not in os.environ.get("LD_PRELOAD", "") or find_spec("scipy_openblas32") is None:
        return ""
    import scipy_openblas32  # noqa: PLC0415 - it loads the library

    return f"{scipy_openblas32.get_openblas_config()} {_digest(SOURCE.read_text())}"
