"""A faster matrix library for MLX on a Linux CPU.

The mlx-cpu wheel brings the reference BLAS, about 20 times slower than OpenBLAS at a prompt. MLX
calls three functions of it, so a library that exports these and is loaded first takes its place.
The wheel scipy-openblas32 has them under other names; a library of three functions, compiled once,
passes them on.

Products with one or two rows go to its matrix-vector function, which does not copy the matrix
first: all linear layers of a stream that runs alone (CPU ms for those of SmolLM2-135M with 1, 2 and
4 rows: 37, 57 and 95; as matrix products 80, 79 and 76), and attention in every decoding step
(scores with 1,536 cells of 64 numbers 7 us, values 6 us instead of 26 us).

Attention is computed in blocks of 64 cells. So a sum over cells is divided at the same places
whatever their number, where OpenBLAS would divide it, or share it among threads, at places that
depend on it. Cells behind a sequence's last add zeros, and its numbers do not depend on the length
of the others in its batch: reproducible answers need that.
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

SOURCE = """
#include <string.h>
enum { BY_ROWS = 101, PLAIN = 111, TRANSPOSED = 112, FEW_ROWS = 2, CELLS = 64, WIDEST_HEAD = 256 };
void scipy_cblas_sgemv(int, int, int, int, float, const float *, int, const float *, int,
                       float, float *, int);
static int least(int one, int other) { return one < other ? one : other; }
/* y = x B; a linear layer or scores where B is transposed, else values */
static void by_vector(int tb, int n, int k, float alpha, const float *b, int ldb,
                      const float *x, float *y) {
  memset(y, 0, n * sizeof *y);
  int some = k <= WIDEST_HEAD ? CELLS : n;
  if (tb == TRANSPOSED)
    for (int at = 0; at < n; at += some)
      scipy_cblas_sgemv(BY_ROWS, PLAIN, least(some, n - at), k, alpha, b + (long)at * ldb, ldb,
                        x, 1, 0, y + at, 1);
  else
    for (int at = 0; at < k; at += CELLS)
      scipy_cblas_sgemv(BY_ROWS, TRANSPOSED, least(CELLS, k - at), n, alpha, b + (long)at * ldb,
                        ldb, x + at, 1, 1, y, 1);
}
#define GEMM(name, scalar, number, shortcut) \\
  void scipy_cblas_##name(int, int, int, int, int, int, scalar, const number *, int, \\
                          const number *, int, scalar, number *, int); \\
  void cblas_##name(int order, int ta, int tb, int m, int n, int k, scalar alpha, \\
                    const number *a, int lda, const number *b, int ldb, scalar beta, \\
                    number *c, int ldc) { \\
    shortcut \\
    scipy_cblas_##name(order, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc); \\
  }
#define BY_VECTORS \\
  if (order == BY_ROWS && ta == PLAIN && m <= FEW_ROWS && beta == 0) { \\
    for (int row = 0; row < m; row++) \\
      by_vector(tb, n, k, alpha, b, ldb, a + (long)row * lda, c + (long)row * ldc); \\
    return; \\
  }
GEMM(sgemm, float, float, BY_VECTORS)
GEMM(dgemm, double, double, )
GEMM(cgemm, const void *, void, )
"""


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
    return env | {"OPENBLAS_NUM_THREADS": number, "OPENBLAS_THREAD_TIMEOUT": "12"}


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
    key = _digest(f"{library}\n{SOURCE}")
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
        source, built = Path(folder) / "shim.c", Path(folder) / "shim.so"
        source.write_text(SOURCE)
        options = ["-shared", "-fPIC", "-O2", str(source), "-o", str(built), str(library)]
        command = [compiler, *options, f"-Wl,-rpath,{library.parent}"]
        done = subprocess.run(  # noqa: S603 - a compiler of this machine
            command,
            env=child_environment(),
            capture_output=True,
            timeout=COMPILE_S,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{compiler} failed: {done.stderr.decode(errors='replace')[-300:]}")
        built.replace(target)


def matrix_library() -> str:
    """Return which OpenBLAS this process computes with, for which processor, and how its functions
    are called; "" for MLX's own library. Its kernels differ by processor.
    """
    if "openblas" not in os.environ.get("LD_PRELOAD", "") or find_spec("scipy_openblas32") is None:
        return ""
    import scipy_openblas32  # noqa: PLC0415 - it loads the library

    return f"{scipy_openblas32.get_openblas_config()} {_digest(SOURCE)}"
