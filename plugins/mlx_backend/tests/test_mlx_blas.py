"""The faster matrix library on a Linux CPU."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lmx_mlx_backend import blas
from lmx_mlx_backend.backend import MlxBackend
from lmx_mlx_backend.findings import examine
from structlog.testing import capture_logs

from lmx_kernel.interfaces import Finding

pytestmark = pytest.mark.linux("other systems bring a fast library")

PROGRAM = """
import mlx.core as mx
mx.set_default_device(mx.cpu)
def is_right(rows, inner, columns, is_transposed):
    a = mx.random.normal((rows, inner)); b = mx.random.normal((inner, columns))
    wanted = (a[:, :, None] * b[None]).sum(axis=1)
    b = mx.contiguous(b.T).T if is_transposed else b
    mx.eval(b)
    return mx.allclose(a @ b, wanted, atol=1e-3).item()
print(all(is_right(rows, inner, columns, is_transposed)
          for rows in (1, 2, 3, 5, 8, 9) for is_transposed in (False, True)
          for inner, columns in ((33, 5), (16, 130), (150, 40), (300, 703))))
a = mx.random.normal((8, 300)); w = mx.random.normal((703, 300))
alone = [a[row : row + 1] @ w.T for row in range(8)]
print(all(mx.array_equal((a[:rows] @ w.T)[row], alone[row][0]).item()
          for rows in range(1, 9) for row in range(rows)) or not HAS_AVX2)
print(any("scipy_openblas" in line for line in open("/proc/self/maps")))
"""
CPU = Path("/proc/cpuinfo")
HAS_AVX2 = CPU.exists() and {"avx2", "fma"} <= set(CPU.read_text().split())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A new LMX_HOME, in which nothing was compiled."""
    monkeypatch.setenv("LMX_HOME", str(tmp_path))
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    blas.find_blas.cache_clear()
    yield tmp_path
    blas.find_blas.cache_clear()


def test_mlx_computes_with_openblas(home: Path) -> None:
    env = MlxBackend().worker_env({"threads": 2})
    assert env["OPENBLAS_NUM_THREADS"] == "2"
    assert Path(env["LD_PRELOAD"]).parent == home / "cache"
    done = subprocess.run(
        [sys.executable, "-c", f"{HAS_AVX2 = }\n{PROGRAM}"],
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["True"] * 3
    assert done.stderr == ""


@pytest.mark.parametrize("name", ["my home", "a:b"])
def test_a_home_that_the_loader_would_split(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("LMX_HOME", str(home / name))
    library = blas.find_blas()
    assert library is not None
    assert " " not in str(library)
    assert ":" not in str(library)
    assert library.parent.stat().st_mode & 0o777 == 0o700
    assert openblas().is_ok


def test_doctor_says_what_is_loaded(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert openblas().is_ok
    monkeypatch.setattr(blas, "SEPARATORS", frozenset())
    monkeypatch.setenv("LMX_HOME", str(home / "my home"))
    blas.find_blas.cache_clear()
    found = openblas()
    assert not found.is_ok
    assert "does not load it" in found.text


def openblas() -> Finding:
    return next(found for found in examine() if found.subject == "mlx OpenBLAS")


def test_it_is_compiled_once(home: Path) -> None:
    first = blas.find_blas()
    assert first is not None
    made_ns = first.stat().st_mtime_ns
    blas.find_blas.cache_clear()
    assert blas.find_blas() == first
    assert first.stat().st_mtime_ns == made_ns
    assert [file.name for file in (home / "cache").iterdir()] == [first.name]


@pytest.mark.parametrize(
    ("missing", "advice"),
    [("wheel", "pip install scipy-openblas32"), ("compiler", "install a C compiler")],
)
def test_what_is_missing_is_said_once(
    home: Path, monkeypatch: pytest.MonkeyPatch, missing: str, advice: str
) -> None:
    if missing == "wheel":
        monkeypatch.setattr(blas, "find_spec", lambda name: None)
    else:
        monkeypatch.setenv("PATH", str(home))
    with capture_logs() as logs:
        for _ in range(3):
            assert "LD_PRELOAD" not in MlxBackend().worker_env({})
    assert len(logs) == 1
    assert advice in logs[0]["reason"]


def test_a_compiler_without_openmp_does(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = home / "bin" / "cc"
    compiler.parent.mkdir()
    gcc = shutil.which("cc") or "cc"
    compiler.write_text(f'#!/bin/sh\ncase "$*" in *-fopenmp*) exit 1;; esac\nexec {gcc} "$@"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", f"{compiler.parent}:{os.environ['PATH']}")
    with capture_logs() as logs:
        assert blas.find_blas() is not None
    assert logs == []


def test_what_was_preloaded_stays(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "/some/other.so")
    assert MlxBackend().worker_env({})["LD_PRELOAD"].endswith(".so:/some/other.so")
