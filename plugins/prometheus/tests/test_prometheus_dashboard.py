"""The dashboard asks for figures that exist, in the words of Grafana and Prometheus."""

from __future__ import annotations

import json
import re

import promql_parser
import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from lmx_host_monitor.monitor import HostMonitor

from lmx_kernel.events import (
    JobChanged,
    LoadFailed,
    MemoryPressed,
    ModelLoaded,
    ModelUnloaded,
    RequestFinished,
    Sampled,
    WorkerCrashed,
)
from lmx_kernel.types import Usage

USAGE = Usage(
    prompt_tokens=7,
    cached_tokens=4,
    completion_tokens=5,
    queue_s=0.25,
    first_token_s=1.0,
    total_s=3.0,
)
EVENTS = (
    RequestFinished(id="1", model="a", outcome="ok", usage=USAGE),
    ModelLoaded(model="a", pid=1, load_s=1, memory_bytes=1),
    ModelUnloaded(model="a", reason="idle"),
    LoadFailed(model="a", code="model_unusable", message=""),
    WorkerCrashed(model="a", reason="", resumed=1, failed=1),
    MemoryPressed(level="hard", used_bytes=1, budget_bytes=1, worker="a"),
    JobChanged(id="1", kind="download", state="running", done=0, total=None),
    JobChanged(id="2", kind="download", state="done", done=1, total=1),
)


@pytest.fixture
def dashboard(request):
    return json.loads((request.config.rootpath / "docs/grafana/lmx.json").read_text())


@pytest.fixture
def queries(dashboard):
    """Return every PromQL expression, with the dashboard's variables filled in."""
    targets = [
        target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())
    ]
    notes = [note["expr"] for note in dashboard["annotations"]["list"]]
    return [query.replace("$__rate_interval", "1m") for query in (*targets, *notes)]


@pytest.fixture
def full_page(load, page_of, tmp_path):
    """Return the page of a daemon to which everything has happened."""
    plugins = load()
    ((_, tell),) = plugins.observers()
    for event in (*EVENTS, Sampled(monitor="host", values=dict(HostMonitor(5, tmp_path).sample()))):
        tell(event)
    return page_of(plugins)


def selectors(query):
    """Return every selector of a query: its metric, and its labels that must equal something."""
    found = []

    def visit(node):
        if isinstance(node, promql_parser.VectorSelector):
            exact = promql_parser.MatchOp.Equal
            matchers = node.matchers.matchers
            found.append((node.name, {m.name: m.value for m in matchers if m.op == exact}))

    promql_parser.walk(promql_parser.parse(query), visit)
    return found


def missing(wanted, known, path=""):
    """Return the places of a document that are lost in another."""
    if isinstance(wanted, dict) and isinstance(known, dict):
        for key, value in wanted.items():
            yield from missing(value, known.get(key), f"{path}.{key}")
    elif isinstance(wanted, list) and isinstance(known, list) and len(wanted) == len(known):
        for index, pair in enumerate(zip(wanted, known, strict=True)):
            yield from missing(*pair, f"{path}[{index}]")
    elif wanted != known:
        yield path


def test_grafana_knows_every_field(dashboard):
    register_default_plugins()
    read = json.loads(json.dumps(Dashboard.from_json(dashboard), cls=JSONEncoder))
    assert list(missing(dashboard, read)) == []


def test_panels_have_ids_of_their_own_and_do_not_overlap(dashboard):
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (column, line)
        for panel in panels
        for column in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for line in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(column for column, _ in cells) < 24


def test_every_figure_that_is_asked_for_exists(queries, full_page):
    assert queries
    for query in queries:
        for metric, labels in selectors(query):
            assert any(
                sample.name == metric and labels.items() <= sample.labels.items()
                for sample in full_page.samples
            ), (metric, labels)


def test_every_figure_is_shown(queries, full_page):
    asked = {metric for query in queries for metric, _ in selectors(query)}
    ending = re.compile("_(bucket|count|sum|created|total)$")
    unasked = {ending.sub("", n) for n in full_page.names} - {ending.sub("", n) for n in asked}
    assert unasked == {"lmx_build_info"}
