"""The size of files, classes and functions: what a reader can keep in mind."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILES = [*ROOT.glob("lmx_kernel/**/*.py"), *ROOT.glob("plugins/*/lmx_*/**/*.py")]
TREES = {path.relative_to(ROOT): ast.parse(path.read_text()) for path in FILES}
FILE_LINES, CLASS_LINES, FUNCTION_LINES, ATTRIBUTES = 400, 250, 40, 15


def nodes(*kinds):
    """Yield every node of these kinds, with its place."""
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, kinds):
                yield f"{path}:{node.lineno} {node.name}", node


def lines_of(node):
    return node.end_lineno - node.lineno + 1


def attributes_of(cls):
    """Return the attributes that the methods of a class assign to ``self``."""
    return {
        node.attr
        for node in ast.walk(cls)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


def check(sizes, most, unit):
    too_large = [f"{where}: {size} {unit}" for where, size in sizes if size > most]
    assert not too_large, f"more than {most} {unit}:\n" + "\n".join(sorted(too_large))


def test_no_file_is_too_long():
    sizes = [(str(path.relative_to(ROOT)), len(path.read_text().splitlines())) for path in FILES]
    assert len(sizes) > 100
    check(sizes, FILE_LINES, "lines")


def test_no_class_is_too_long():
    check([(where, lines_of(node)) for where, node in nodes(ast.ClassDef)], CLASS_LINES, "lines")


def test_no_class_has_too_many_attributes():
    sizes = [(where, len(attributes_of(node))) for where, node in nodes(ast.ClassDef)]
    check(sizes, ATTRIBUTES, "attributes")


def test_no_function_is_too_long():
    functions = nodes(ast.FunctionDef, ast.AsyncFunctionDef)
    check([(where, lines_of(node)) for where, node in functions], FUNCTION_LINES, "lines")
