"""What tests need of a system is said by a marker, so that the job on macOS runs all others."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TESTS = [
    path
    for path in [*ROOT.glob("tests/**/*.py"), *ROOT.glob("plugins/*/tests/**/*.py")]
    if path != Path(__file__)
]
ONLY_LINUX = re.compile(
    r"/proc/|/sys/|/dev/full|/dev/shm|oom_score|OOM_SCORE|\.rlimit\(|systemd-analyze|systemd-run"
    r"|LD_PRELOAD|\"tmpfs\"|sched_setaffinity|unshare|ignored_signals|blas_env|find_blas"
)
# Files and functions that only name such things, or put them in place for what they test.
SIMULATED = {
    "tests/test_platforms.py",
    "tests/test_orphans.py",
    "tests/test_supervised.py::test_a_score_never_exceeds_what_linux_takes",
    "tests/test_supervised.py::test_a_system_without_scores_is_no_problem",
}


def unmarked(path):
    """Yield the tests of a file that use what only Linux has, and do not say so."""
    text = path.read_text()
    tree = ast.parse(text)
    if re.search(r"^pytestmark = pytest\.mark\.linux\(", text, re.MULTILINE):
        return
    name = path.relative_to(ROOT).as_posix()
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        place = f"{name}::{node.name}"
        if (
            node.name.startswith("test_")
            and not SIMULATED & {name, place}
            and ONLY_LINUX.search(ast.unparse(ast.Module(node.body, [])))
            and not any("mark.linux(" in ast.unparse(one) for one in node.decorator_list)
        ):
            yield place


def test_what_needs_linux_says_so():
    assert [place for path in TESTS for place in unmarked(path)] == []


@pytest.mark.parametrize(
    ("platform", "skipped"), [("linux", ["macos"]), ("darwin", ["linux"]), ("sunos", ["both"])]
)
def test_a_test_for_another_system_is_skipped_with_its_reason(
    pytestconfig, monkeypatch, platform, skipped
):
    [hook] = [
        plugin.pytest_runtest_setup
        for plugin in pytestconfig.pluginmanager.get_plugins()
        if getattr(plugin, "__file__", "") == str(ROOT / "conftest.py")
    ]

    class Item:
        def iter_markers(self, name):
            return (mark for mark in self.marks if mark.name == name)

    monkeypatch.setattr(sys, "platform", platform)
    for marks in (("linux",), ("macos",), ()):
        item = Item()
        item.marks = [getattr(pytest.mark, name)("a reason").mark for name in marks]
        told = ""
        try:
            hook(item)
        except pytest.skip.Exception as error:
            told = str(error)
        is_skipped = bool(marks) and (marks[0] in skipped or "both" in skipped)
        assert told == (f"needs {marks[0]}: a reason" if is_skipped else "")


def test_the_job_on_macos_runs_the_whole_suite_and_says_what_it_skips():
    job = (ROOT / ".github/workflows/ci.yml").read_text()
    assert "macos-14" in job
    assert re.search(r"PYTEST_ADDOPTS: .*-rs\b", job)
    assert re.search(r"^ +make test$", job, re.MULTILINE)
    assert not re.search(r"-k |--deselect|--ignore|continue-on-error", job)
