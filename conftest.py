"""What all tests share: those that need one system say so, and why."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SYSTEMS = {"linux": "linux", "macos": "darwin"}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test that needs another system; the reason is the marker's argument."""
    for name, platform in SYSTEMS.items():
        for mark in item.iter_markers(name):
            if sys.platform != platform:
                pytest.skip(f"needs {name}: {mark.args[0]}")


@pytest.fixture
def pip_install(tmp_path: Path) -> Callable[[Path], Path]:
    """Return a function that makes a virtual environment, lets pip build and install a package from
    its folder there, and returns the environment's Python. The package's dependencies are those of
    the tests; what builds it, pip takes from the index.
    """

    def install(folder: Path) -> Path:
        venv = tmp_path / "venv"
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)  # noqa: S603 - our own
        [packages] = venv.glob("lib/python*/site-packages")
        ours = [path for path in sys.path if path.endswith("site-packages")]
        lines = [f"import site; site.addsitedir({path!r})" for path in ours]
        (packages / "ours.pth").write_text("\n".join(lines))
        python = venv / "bin" / "python"
        pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-deps"]
        subprocess.run([*pip, folder], check=True)  # noqa: S603 - our own
        return python

    return install
