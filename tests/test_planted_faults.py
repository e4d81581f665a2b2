"""Faults that are planted into the template of each kind of plugin: the share that its test finds.

A file of ``planted_faults/`` has the faults of a kind, with a blank line between two. Each is one
replacement, or several: the lines after ``- `` are replaced by those after ``+ ``. ``! `` instead
of the first ``- `` marks a fault that mixes requests.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import traceback
import zipfile
from pathlib import Path

import pytest
from attrs import frozen

from lmx_kernel.plugins.scaffold import KINDS, write_package
from lmx_kernel.plugins.wheel import build_wheel

FOLDER = Path(__file__).parent / "planted_faults"
LEAST, LEAST_SHARE = 20, 0.9
FORKED = (
    "httpx2",
    "hypothesis",
    "lmx_kernel.kernel.assembly",
    "lmx_kernel.testing.conformance.surface",
    *(PLUGINS := ("pytest_asyncio.plugin", "pytest_timeout")),
)
OPTIONS = ("-q", "-x", "--import-mode=importlib", "-p", "no:cacheprovider", "--no-header")
OPTIONS += tuple(word for plugin in PLUGINS for word in ("-p", plugin))
SLOW, NOTHING_SELECTED = "imports_nothing_heavy", 5
TIMEOUT_S = 60


@frozen
class Fault:
    """Replacements in the files of a package."""

    text: str
    mixes_requests: bool
    changes: tuple[tuple[str, list[str]], ...]

    def plant(self, site: Path) -> None:
        for old, new in self.changes:  # a line of 8 spaces and more stands as it is
            pattern = r"\n\s*".join(re.escape(line.strip()) for line in old.split("\n"))
            found = [path for path in site.glob("*.py") if re.search(pattern, path.read_text())]
            assert found, f"no file has:\n{old}"
            source = found[0].read_text()
            begin = re.search(rf"([ \t]*){pattern}", source)
            lines = [line if line.startswith(8 * " ") else begin[1] + line for line in new]
            changed = source[: begin.start()] + "\n".join(lines) + source[begin.end() :]
            found[0].write_text(changed)


def faults_of(kind: str) -> list[Fault]:
    found = []
    for text in re.split(r"\n\n(?=[-!] )", (FOLDER / f"{kind}.txt").read_text().rstrip("\n")):
        changes, old, new = [], [], []
        for line in text.split("\n"):
            if line[:1] in "-!" and new:
                changes.append(("\n".join(old), new))
                old, new = [], []
            (new if line.startswith("+") else old).append(line[2:])
        changes.append(("\n".join(old), new))
        found.append(Fault(text, text.startswith("!"), tuple(changes)))
    return found


def is_found(site: Path, tests: Path, log: Path) -> bool:
    """Run the tests in a fork, which has imported already what all of them need."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0
    status = 1
    try:
        out = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.path.insert(0, str(site))
        os.environ["PYTHONPATH"] = str(site)
        os.chdir(tests.parent)
        for which in (f"not {SLOW}", SLOW):  # the one that starts a process comes last
            status = pytest.main([*OPTIONS, f"--timeout={TIMEOUT_S}", "-k", which, str(tests)])
            if status not in (0, NOTHING_SELECTED):
                break
        status = 0 if status == NOTHING_SELECTED else status
    except BaseException:  # noqa: BLE001 - whatever it is, the fault was found
        traceback.print_exc()
    finally:
        os._exit(status)


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
def test_the_kit_finds_planted_faults(tmp_path, kind, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # they cost twice the tests
    for name in FORKED:
        __import__(name)
    folder = write_package(kind, "mine", tmp_path)
    wheel = build_wheel(folder, tmp_path)
    log = tmp_path / "log"

    def unpacked() -> Path:
        site = tmp_path / "site"
        shutil.rmtree(site, ignore_errors=True)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
        return site

    assert not is_found(unpacked(), folder / "tests", log), log.read_text()
    faults, missed = faults_of(kind), []
    for fault in faults:
        site = unpacked()
        fault.plant(site)
        if not is_found(site, folder / "tests", log):
            missed.append(fault)
    share = 1 - len(missed) / len(faults)
    print(f"{kind}: {len(faults) - len(missed)} of {len(faults)} found")  # noqa: T201
    told = "\n\n".join(fault.text for fault in missed)
    assert share >= LEAST_SHARE, f"{share:.0%}; missed:\n\n{told}"
    assert not [fault for fault in missed if fault.mixes_requests], told


def test_the_faults_are_enough_and_can_be_planted(tmp_path):
    for kind in KINDS:
        faults = faults_of(kind)
        assert len(faults) >= LEAST, kind
        folder = write_package(kind, "mine", tmp_path / kind)
        for fault in faults:
            site = tmp_path / "site"
            shutil.rmtree(site, ignore_errors=True)
            site.mkdir()
            for path in folder.glob("*.py"):
                shutil.copy(path, site)
            fault.plant(site)
            for path in site.glob("*.py"):  # what does not even compile is no fault to look for
                compile(path.read_text(), fault.text, "exec")
