"""What plugins may import, the version of it, and how something leaves it."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import lmx_kernel.api
from lmx_kernel.api import API
from lmx_kernel.hookspecs import WORKER_GROUP
from lmx_kernel.interfaces import HttpRequest, PluginState
from lmx_kernel.plugins.deprecation import LmxDeprecationWarning, deprecated
from lmx_kernel.plugins.entry_points import entry_points
from lmx_kernel.plugins.manager import Plugins
from lmx_kernel.plugins.settings import PluginSettings

ROOT = Path(__file__).parent.parent
SOURCES = [*ROOT.glob("plugins/*/lmx_*/**/*.py"), *ROOT.glob("examples/*/lmx_*/**/*.py")]
SOURCES += ROOT.glob("examples/*/lmx_*.py")
MODULES = ["lmx_kernel.api"] + [
    f"lmx_kernel.api.{module.name}" for module in pkgutil.iter_modules(lmx_kernel.api.__path__)
]
HEAVY = ("falcon", "cyclopts", "rich", "numpy", "uvicorn", "structlog", "psutil", "jinja2")
LATER = f"{API[0]}.{API[1] + 1}"

# LMX's own plugins are released with the kernel, so they may use what is not promised to others.
PRIVATE = {
    "lmx_kernel",  # its version, and the module of events as a whole
    "lmx_kernel.cli.light_config",
    "lmx_kernel.cli.main",
    "lmx_kernel.config.days",
    "lmx_kernel.config.disk_sync",
    "lmx_kernel.config.section",  # of the API, but commands import no other interface
    "lmx_kernel.daemon.run_file",
    "lmx_kernel.daemon.start",
    "lmx_kernel.events",  # event_name
    "lmx_kernel.hookspecs",  # the section of constraints
    "lmx_kernel.http.port",
    "lmx_kernel.http.settings",
    "lmx_kernel.kernel.boot",
    "lmx_kernel.kernel.scan",
    "lmx_kernel.memory.darwin",
    "lmx_kernel.memory.machine",
    "lmx_kernel.memory.sizes",
    "lmx_kernel.models.names",
    "lmx_kernel.observe.log",
    "lmx_kernel.plugins.entry_points",
    "lmx_kernel.processes.child",
    "lmx_kernel.processes.limits",
    "lmx_kernel.routing.decide",
    "lmx_kernel.runtime.settings",
    "lmx_kernel.text.formats.json_schema",
    "lmx_kernel.text.formats.schema_texts",
}


def imports_of(path):
    """Yield the module and the name of every import from the kernel."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lmx_kernel"):
            yield from ((node.module, alias.name) for alias in node.names)


def public(modules=MODULES):
    """Return what the API offers: each object by the module that it is from, and its name."""
    found = set()
    for module in modules:
        tree = ast.parse(Path(importlib.import_module(module).__file__).read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                found |= {(node.module, alias.name) for alias in node.names}
    return found


@pytest.mark.parametrize("name", MODULES)
def test_a_module_of_the_api_offers_what_it_lists_and_nothing_else(name):
    module = importlib.import_module(name)
    assert all(hasattr(module, one) for one in module.__all__)
    assert len(module.__all__) == len(set(module.__all__))
    hidden = {one for one in vars(module) if not one.startswith("_")} - {*module.__all__}
    hidden -= {"TYPE_CHECKING", "annotations"}
    assert not {one for one in hidden if f"{name}.{one}" not in MODULES}


def test_what_is_imported_when_it_is_asked_for_is_what_type_checkers_see():
    seen = {name: module for module, name in public(["lmx_kernel.api"])}
    for name in lmx_kernel.api.__all__:
        expected = getattr(importlib.import_module(seen[name]), name)
        assert getattr(lmx_kernel.api, name) is expected, name
    with pytest.raises(AttributeError, match="no attribute 'import_module'"):
        lmx_kernel.api.import_module  # noqa: B018 - it raises


def test_everything_that_our_own_plugins_import_is_promised_or_known_to_be_private():
    offered = public()
    unpromised = {
        module
        for path in SOURCES
        for module, name in imports_of(path)
        if module not in MODULES
        and (module, name) not in offered
        and not module.startswith("lmx_kernel.testing")
    }
    assert unpromised == PRIVATE


def test_examples_import_nothing_but_the_api():
    examples = [path for path in SOURCES if "examples" in path.parts]
    assert examples
    for path in examples:
        assert {module for module, _ in imports_of(path)} <= {*MODULES}, path


def test_importing_the_contract_imports_no_framework():
    code = "import sys, lmx_kernel.api; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {*HEAVY} & set(done.stdout.split())


# --- the version ---


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Return a function that installs a package, made for a version of the API."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(made_for, group="lmx", source=""):
        info = tmp_path / "lmx_plugin_dated-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: dated\nVersion: 1.0\n")
        promise = f"[lmx.api]\n{made_for} = lmx_kernel.api\n" if made_for else ""
        (info / "entry_points.txt").write_text(f"[{group}]\ndated = lmxtest_dated\n{promise}")
        (tmp_path / "lmxtest_dated.py").write_text(source)
        monkeypatch.delitem(sys.modules, "lmxtest_dated", raising=False)

    return install


def load_dated():
    """Load the package alone."""
    others = {entry.name for entry in entry_points("lmx")} - {"dated"}
    plugins = Plugins(PluginSettings(disabled=tuple(others)))
    return plugins, {status.name: status for status in plugins.statuses}["dated"]


@pytest.mark.parametrize("made_for", ["", f"{API[0]}", f"{API[0]}.{API[1]}"])
def test_a_plugin_of_this_version_is_loaded(package, made_for):
    package(made_for)
    assert load_dated()[1].state is PluginState.ACTIVE


@pytest.mark.parametrize("made_for", [f"{API[0] + 1}.0", f"{API[0] - 1}.0", LATER, "soon", "1.0.0"])
def test_a_plugin_of_another_version_is_off_and_says_why(package, made_for):
    package(made_for, source="raise RuntimeError('must not be imported')")
    _, status = load_dated()
    assert status.state is PluginState.FAILED
    assert status.reason == f"it is made for version {made_for} of LMX's API, and this one has 1.0"


def test_what_such_a_package_offers_to_workers_is_left_out(package, caplog):
    caplog.set_level("WARNING", "lmx")  # an earlier test may have put a config in force
    package(LATER, group=WORKER_GROUP)
    assert not entry_points(WORKER_GROUP, "dated")
    assert f"dated cannot be used and is ignored: it is made for version {LATER}" in caplog.text


def test_the_version_is_not_listed_as_something_that_the_package_registers(package):
    package("1.0")
    assert {entry.group for entry in entry_points("lmx.")} >= {WORKER_GROUP}
    assert not [entry for entry in entry_points("lmx.") if entry.group == "lmx.api"]


def test_an_authoriser_of_another_version_leaves_no_open_server(package):
    source = "from lmx_kernel.api import hookimpl\n@hookimpl\ndef lmx_authorize(request): pass\n"
    package(LATER, source=source)
    plugins, _ = load_dated()
    request = HttpRequest(method="GET", path="/v1/models", headers={}, client="127.0.0.1")
    assert plugins.authorize(request).code == "unauthorized"


# --- deprecation ---


@deprecated("1.1", "2.0", "new_way()")
def old_way(number):
    """Return the number."""
    return number


def test_a_deprecated_function_works_and_names_the_plugin_that_uses_it(caplog, monkeypatch):
    caplog.set_level("WARNING", "lmx")
    monkeypatch.setitem(globals(), "__name__", "lmx_prometheus.somewhere")
    with pytest.warns(LmxDeprecationWarning) as caught:
        assert [old_way(3), old_way(4)] == [3, 4]
    text = str(caught[0].message)
    assert text.startswith("lmx-plugin-prometheus 0.1.0 uses ")
    assert text.endswith(
        "test_api.old_way, deprecated since version 1.1 of LMX's API and gone in 2.0: use new_way()"
    )
    assert caught[0].filename == __file__
    assert [record.getMessage() for record in caplog.records] == [text]


def test_a_module_of_no_package_is_named_itself(monkeypatch):
    monkeypatch.setitem(globals(), "__name__", "no_such_package.somewhere")
    with pytest.warns(LmxDeprecationWarning, match="^no_such_package.somewhere uses "):
        old_way(1)
