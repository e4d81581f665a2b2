"""The faster matrix library on a Linux CPU."""

from __future__ import annotations

import os
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
a = mx.random.normal((7, 33)); b = mx.random.normal((33, 5))
expected = (a[:, :, None] * b[None]).sum(axis=1)
print(mx.allclose(a @ b, expected, atol=1e-4).item())
w = mx.random.normal((40, 33))
wanted = (a[:, None] * w[None]).sum(axis=2)
print(all(mx.allclose(a[n : n + m] @ w.T, wanted[n : n + m], atol=1e-4).item()
          for m in (1, 2, 3) for n in (0, 4)))
v = mx.random.normal((150, 40)); p = mx.random.normal((3, 150)); u = mx.random.normal((90, 300))
print(all(mx.allclose(p[:m] @ v, (p[:m, :, None] * v[None]).sum(axis=1), atol=1e-4).item()
          and mx.allclose(p[:m] @ v @ u[:, :40].T,
                          ((p[:m] @ v)[:, None] * u[None, :, :40]).sum(axis=2), atol=1e-3).item()
          and mx.allclose(mx.tile(p[:m], (1, 2)) @ u.T,
                          (mx.tile(p[:m], (1, 2))[:, None] * u[None]).sum(axis=2), atol=1e-3).item()
          for m in (1, 2, 3)))
print(any("scipy_openblas" in line for line in open("/proc/self/maps")))
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A new LMX_HOME, in which nothing was compiled."""
    monkeypatch.setenv("LMX_HOME", str(tmp_path))
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    blas.find_blas.cache_clear()
    yield tmp_path
    blas.find_blas.cache_clear()


def test_mlx_computes_with_openblas(home: Path) -> None:
    env = MlxBackend().worker_env({"threads": 1})
    assert env["OPENBLAS_NUM_THREADS"] == "1"
    assert Path(env["LD_PRELOAD"]).parent == home / "cache"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["True"] * 4
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


def test_what_was_preloaded_stays(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "/some/other.so")
    assert MlxBackend().worker_env({})["LD_PRELOAD"].endswith(".so:/some/other.so")
