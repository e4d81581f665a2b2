"""Grammars are checked also where the system sets no limits, as macOS does not."""

from __future__ import annotations

import pytest
from lmx_constraints import checker
from lmx_constraints.checker import GrammarChecker

NO_LIMITS = """
import resource

def setrlimit(*_):
    raise ValueError("current limit exceeds maximum limit")

resource.setrlimit = setrlimit
"""
GRAMMAR = '{"grammars": [{"json_schema": {"type": "object"}}]}'


@pytest.fixture
def grammar_checker():
    found = GrammarChecker(256, {256: "<end>"})
    yield found
    found.close()


@pytest.fixture
def no_limits(tmp_path, monkeypatch):
    """Children on a system whose limits cannot be set."""
    (tmp_path / "sitecustomize.py").write_text(NO_LIMITS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.mark.usefixtures("no_limits")
def test_a_grammar_is_checked_without_limits_of_the_system(grammar_checker):
    assert grammar_checker.problem_with(GRAMMAR) == ""


@pytest.mark.usefixtures("no_limits")
def test_memory_is_bounded_without_limits_of_the_system(grammar_checker, monkeypatch):
    assert grammar_checker.problem_with(GRAMMAR) == ""
    monkeypatch.setattr(checker, "MEMORY_BYTES", 1 << 20)  # less than any interpreter takes
    monkeypatch.setattr(checker, "LOOK_S", 0.0)
    other = GRAMMAR.replace("object", "array")
    assert "too much time or memory" in grammar_checker.problem_with(other)


def test_a_child_imports_nothing_from_the_current_folder(grammar_checker, tmp_path, monkeypatch):
    (tmp_path / "llguidance.py").write_text("raise SystemExit('not this file')")
    monkeypatch.chdir(tmp_path)
    assert grammar_checker.problem_with(GRAMMAR) == ""
