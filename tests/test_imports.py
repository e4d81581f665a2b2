"""What the kernel's package must not import: engines and other libraries that belong to plugins."""

from __future__ import annotations

import ast
from pathlib import Path

import lmx_kernel

PACKAGE = Path(lmx_kernel.__file__).parent
FORBIDDEN = {"llama_cpp", "llguidance", "mlx", "mlx_lm"}


def imported(source):
    """Yield the top-level packages that a module imports anywhere, with the line of each."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0], node.lineno


def test_an_import_inside_a_function_or_for_types_is_found():
    source = "if TYPE_CHECKING:\n    from mlx.nn import Module\ndef f():\n    import llguidance.hf"
    assert set(imported(source)) == {("mlx", 2), ("llguidance", 4)}


def test_the_kernel_imports_no_engine_and_no_grammar_library():
    modules = sorted(PACKAGE.rglob("*.py"))
    assert PACKAGE / "testing" / "fake_engine.py" in modules
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {name}"
        for path in modules
        for name, line in imported(path.read_text())
        if name in FORBIDDEN
    ]
    assert not found
