"""The parts of the kernel: what is written of them, and which way imports point."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import lmx_kernel

ROOT = Path(__file__).parent.parent
KERNEL = ROOT / "lmx_kernel"
DESIGN = (ROOT / "docs" / "design.md").read_text()
CONTRACT = {"api/", "errors.py", "events.py", "hookspecs.py", "interfaces/", "types/"}
ENTRY = {"__init__.py", "__main__.py"}
SOURCES = [*KERNEL.rglob("*.py"), *ROOT.glob("plugins/*/lmx_*/**/*.py")]


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    start = next(index for index, part in enumerate(parts) if part.startswith("lmx_"))
    return ".".join(parts[start:]).removesuffix(".__init__")


def imported_names(path, module):
    """Yield all that a file imports: at its top, in functions, and for the type checker alone."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = importlib.util.resolve_name(f"{'.' * node.level}{node.module or ''}", package)
            yield source
            yield from (f"{source}.{alias.name}" for alias in node.names)


def module_graph():
    """Return which of our own modules each of them imports."""
    modules = {module_name(path): path for path in SOURCES}
    return {
        module: (set(imported_names(path, module)) & modules.keys()) - {module}
        for module, path in modules.items()
    }


def room_of(module):
    """Return the folder of a kernel module; a module of the root is a room of its own."""
    parts = module.split(".")
    return parts[1] if parts[0] == "lmx_kernel" and len(parts) > 1 else ""


def find_circle(graph):
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " -> ".join(reversed(error.args[1]))
    return None


def tree():
    """Return every folder and every module of the root, but ``__init__.py``."""
    folders = {path.parent.relative_to(KERNEL).as_posix() + "/" for path in KERNEL.rglob("*.py")}
    modules = {path.name for path in KERNEL.glob("*.py")}
    return (folders - {"./"}) | (modules - {"__init__.py"})


def contents():
    """Return what the table of contents in ``lmx_kernel/__init__.py`` lists, in its order."""
    return re.findall(r"^    ([\w/]+(?:/|\.py)) +\S", lmx_kernel.__doc__, re.M)


def design_rooms():
    """Return what the tables of ``docs/design.md`` list, in their order."""
    return re.findall(r"^\| `([\w/]+(?:/|\.py))` \| \S", DESIGN, re.M)


def check_listed(listed, where):
    missing, gone = sorted(tree() - set(listed)), sorted(set(listed) - tree())
    assert not missing, f"{where}: add a line for each of {missing}"
    assert not gone, f"{where}: remove the lines of {gone}, which do not exist"
    assert len(listed) == len(set(listed)), f"{where}: a line stands there twice"


def test_the_root_holds_only_the_contract_and_the_entry():
    assert {path.name for path in KERNEL.glob("*.py")} | {"api/", "interfaces/", "types/"} == (
        CONTRACT | ENTRY
    )


def test_the_table_of_contents_has_every_room_and_no_other():
    check_listed(contents(), "the docstring of lmx_kernel/__init__.py")


def test_the_design_page_has_every_room_and_no_other():
    check_listed(design_rooms(), "the tables of rooms in docs/design.md")


def test_both_list_the_rooms_in_the_same_order():
    assert contents() == design_rooms()


def test_the_design_page_begins_with_the_path_of_a_request_in_eight_steps():
    section = re.search(r"^## The path of a request\n(.*?)^## ", DESIGN, re.M | re.S)
    assert section, "docs/design.md has no section 'The path of a request'"
    assert DESIGN.index("\n## ") == section.start() - 1
    assert re.findall(r"^(\d)\. ", section[1], re.M) == list("12345678")


def test_every_file_that_the_design_page_names_exists():
    files = [path.as_posix() for path in [*SOURCES, *ROOT.glob("tests/**/*.py")]]
    for name in re.findall(r"`([\w/]+\.py)`", DESIGN):
        assert any(file.endswith(f"/{name}") for file in files), f"docs/design.md names {name}"


def test_no_modules_import_each_other_in_a_circle():
    circle = find_circle(module_graph())
    assert circle is None, f"import circle: {circle}"


def test_no_rooms_of_the_kernel_import_each_other_in_a_circle():
    rooms = defaultdict(set)
    edges = defaultdict(list)
    for module, imports in module_graph().items():
        for other in imports:
            pair = room_of(module), room_of(other)
            if all(pair) and pair[0] != pair[1]:
                rooms[pair[0]].add(pair[1])
                edges[pair].append(f"{module} -> {other}")
    circle = find_circle(rooms)
    pairs = circle and list(zip(circle.split(" -> "), circle.split(" -> ")[1:], strict=False))
    assert circle is None, f"circle of rooms: {circle}, by {[edges[pair] for pair in pairs]}"


def test_a_circle_would_be_found():
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})
    assert not find_circle({"a": {"b", "c"}, "b": {"c"}})
    path = KERNEL / "hookspecs.py"
    assert "cyclopts.App" in set(imported_names(path, "lmx_kernel.hookspecs"))  # a type's import
