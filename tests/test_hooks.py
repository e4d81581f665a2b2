"""What plugins get in their hooks, and the hooks around a request and around a plugin's life."""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading

import pytest

from lmx_kernel.cli.plugin_commands import commands_for
from lmx_kernel.errors import ConflictError, ForbiddenError, InternalError
from lmx_kernel.events import RequestFinished
from lmx_kernel.hookspecs import KernelSpecs
from lmx_kernel.interfaces import HttpRequest, PluginState
from lmx_kernel.kernel.request_hooks import MOST_CALLS, RequestHooks
from lmx_kernel.observe.bus import Bus
from lmx_kernel.plugins.calls import Calls
from lmx_kernel.plugins.manager import Plugins
from lmx_kernel.plugins.settings import PluginSettings
from lmx_kernel.runtime.answer import LiveAnswer
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import ask, running_kernel
from lmx_kernel.types import Finished, TextDelta

HEAD = "from lmx_kernel.api import hookimpl, ForbiddenError\n"
REQUEST = HttpRequest(method="GET", path="/", headers={}, client="127.0.0.1")


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that makes a plugin of one module importable, and returns its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name, *hooks):
        body = "".join(f"\n@hookimpl\n{hook}\n" for hook in hooks)
        (tmp_path / f"lmxhooks_{name}.py").write_text(HEAD + body)
        sys.modules.pop(f"lmxhooks_{name}", None)
        return f"lmxhooks_{name}"

    return write


def load(*modules):
    return Plugins(PluginSettings(discover=False, modules=modules, timeout_s=2))


def module(name):
    return sys.modules[name]


def status_of(plugins, name):
    return next(status for status in plugins.statuses if status.name == name)


# --- the context ---


def test_every_hook_may_ask_for_a_context_but_those_that_come_before_the_config():
    takes = {
        name: "context" in inspect.signature(hook).parameters
        for name, hook in vars(KernelSpecs).items()
        if name.startswith("lmx_")
    }
    assert {name for name, is_taken in takes.items() if not is_taken} == {
        "lmx_settings",
        "lmx_requires",
    }


async def test_all_hooks_of_a_plugin_get_one_context(tmp_path, install):
    name = install(
        "all",
        "def lmx_routers(context): got.append(context); return []",
        "def lmx_monitors(settings, context): got.append(context); return []",
        "def lmx_authorize(context): got.append(context); return ForbiddenError('no')",
        "def lmx_event(context): got.append(context)",
        "def lmx_commands(context): got.append(context); return []",
        "def lmx_close(context): got.append(context)",
    )
    with (tmp_path / f"{name}.py").open("a") as file:
        file.write("got = []\n")
    async with running_kernel(tmp_path, {}, plugins=(name,)) as stage:
        plugins = stage.kernel._booted.plugins
        plugins.monitors(stage.settings)
        plugins.commands_by_plugin()
        assert isinstance(plugins.authorize(REQUEST), ForbiddenError)
        for _, observer in plugins.observers():
            observer("event")
        plugins.changes.close()
    [context, *others] = module(name).got
    assert len(others) == 5
    assert all(other is context for other in others)
    assert (context.plugin, context.home) == (name, tmp_path)
    assert context.settings is stage.settings


def test_a_command_gets_the_section_of_its_plugin(tmp_path, install, monkeypatch):
    name = install(
        "greets",
        "def lmx_settings():\n"
        "    import attrs\n"
        "    from lmx_kernel.api import SettingsSection\n"
        "    global Greeting\n"
        "    Greeting = attrs.make_class('Greeting', {'word': attrs.field(default='', type=str)})\n"
        "    return [SettingsSection('greets', Greeting)]",
        "def lmx_commands(context):\n"
        "    from cyclopts import App\n"
        "    app = App(name='greet')\n"
        "    app.default(lambda: context.settings.get(Greeting).word)\n"
        "    return [app]",
    )
    (tmp_path / "config.toml").write_text(
        f'[plugins]\ndiscover = false\nmodules = ["{name}"]\n[greets]\nword = "hello"\n'
    )
    monkeypatch.setenv("LMX_HOME", str(tmp_path))
    for _ in range(2):  # the second time it is known whose command it is
        [app] = commands_for("greet")
        assert app([], exit_on_error=False, result_action="return_value") == "hello"


# --- metrics ---


@pytest.fixture
def metrics(install):
    """The metrics of a plugin, and a function that reads all plugins' metrics."""
    plugins = load(install("metrics", "def lmx_commands(context): got.append(context); return got"))
    module("lmxhooks_metrics").got = []
    plugins.commands_by_plugin()
    return module("lmxhooks_metrics").got[0].metrics, plugins.contexts.metrics


def test_metrics_are_read_by_name_and_labels(metrics):
    mine, read = metrics
    mine.counter("done", "Things done.", ["how"]).add(how="well")
    mine.counter("done", "Things done.", ["how"]).add(2.5, how="well")
    mine.gauge("depth", "How deep.").set(3)
    mine.gauge("depth", "How deep.").set(1)
    for value in (0.5, 1, 2, 7):
        mine.histogram("took", "How long.", [1, 5]).observe(value)
    done, depth, took = read()
    assert (done.name, done.kind, done.text) == ("lmxhooks_metrics_done", "counter", "Things done.")
    assert [(one.labels, one.value) for one in done.series] == [(("well",), 3.5)]
    assert [(one.labels, one.value) for one in depth.series] == [((), 1)]
    assert (took.buckets, took.series[0].counts, took.series[0].value) == ((1, 5), (2, 1, 1), 10.5)


@pytest.mark.parametrize(
    "use",
    [
        lambda mine: mine.counter("Bad", ""),
        lambda mine: mine.counter("a", "", ["le"]),
        lambda mine: (mine.counter("a", ""), mine.gauge("a", "")),
        lambda mine: (mine.counter("a", "", ["x"]), mine.counter("a", "", ["y"])),
        lambda mine: mine.histogram("a", "", []),
        lambda mine: mine.histogram("a", "", [2, 1]),
        lambda mine: mine.counter("a", "").add(-1),
        lambda mine: mine.counter("a", "", ["x"]).add(),
        lambda mine: mine.counter("a", "").add(x="1"),
        lambda mine: mine.gauge("a", "").set("many"),
    ],
)
def test_what_could_not_be_shown_is_refused_where_it_is_declared_or_set(metrics, use):
    mine, read = metrics
    with pytest.raises(ValueError):  # noqa: PT011 - each has words of its own
        use(mine)
    assert not any(metric.series for metric in read())


def test_values_of_labels_are_bounded(metrics):
    mine, read = metrics
    for number in range(1100):
        mine.counter("seen", "Names.", ["name"]).add(name=f"n{number}")
    mine.counter("seen", "Names.", ["name"]).add(name="n0")
    [metric] = read()
    assert len(metric.series) == 1000
    assert metric.series[0].value == 2


# --- transform ---


def hooks_of(*transforms, timeout_s=30):
    hooks = RequestHooks(timeout_s, Calls())
    hooks.use([(f"p{number}", one) for number, one in enumerate(transforms)], [])
    return hooks


def refuse(request):
    raise ForbiddenError("not that")


def leave(request):
    raise SystemExit(3)


async def test_each_plugin_gets_what_the_one_before_made_of_a_request():
    hooks = hooks_of(lambda r: ask(r.model + "b"), lambda r: None, lambda r: ask(r.model + "c"))
    assert (await hooks.transform(ask("a"))).model == "abc"
    hooks.use([], [])
    request = ask("a")
    assert await hooks.transform(request) is request


async def test_a_plugin_refuses_with_its_own_error():
    with pytest.raises(ForbiddenError, match="not that"):
        await hooks_of(refuse).transform(ask("a"))


@pytest.mark.parametrize("broken", [lambda r: 1 / 0, lambda r: "yes", leave, lambda: None])
async def test_a_plugin_that_fails_refuses_the_request_and_is_named(broken):
    with pytest.raises(InternalError, match="the plugin p1 could not check the request"):
        await hooks_of(lambda r: None, broken).transform(ask("a"))


async def test_a_plugin_that_hangs_refuses_the_request_and_delays_no_other():
    stuck = threading.Event()
    hooks = hooks_of(lambda r: stuck.wait() and None, timeout_s=0.05)
    try:
        with pytest.raises(InternalError, match="p0"):
            await hooks.transform(ask("a"))
        # and again, until it has no thread left
        again = [hooks.transform(ask("a")) for _ in range(MOST_CALLS + 5)]
        results = await asyncio.gather(*again, return_exceptions=True)
        assert all(isinstance(one, InternalError) for one in results)
        assert len([one for one in threading.enumerate() if one.name == "run"]) <= MOST_CALLS
        stuck.set()
        async with asyncio.timeout(60):  # once it answers, it is asked again
            while await asyncio.gather(hooks.transform(ask("b")), return_exceptions=True) != [
                ask("b")
            ]:
                await asyncio.sleep(0.01)
    finally:
        stuck.set()


async def test_a_request_is_changed_before_a_model_is_chosen(tmp_path, install):
    name = install(
        "renames",
        "def lmx_transform(request):\n"
        "    import attrs\n"
        "    if request.model == 'bad': raise ForbiddenError('bad is bad')\n"
        "    return attrs.evolve(request, model='m')",
    )
    async with running_kernel(tmp_path, {"m": FakeModel()}, plugins=(name,)) as stage:
        assert await stage.kernel.count_tokens(ask("any name")) > 0
        for attempt in (stage.kernel.generate, stage.kernel.count_tokens):
            with pytest.raises(ForbiddenError, match="bad is bad"):
                await attempt(ask("bad"))


# --- observe ---


class Seen:
    """An observer that can be waited for."""

    def __init__(self):
        self.events, self.ended, self.gate = [], threading.Event(), threading.Event()
        self.gate.set()

    def see(self, event):
        assert self.gate.wait(60)
        self.events.append(event)

    def end(self, outcome, usage):
        self.events.append((outcome, usage.completion_tokens))
        self.ended.set()


def answered(hooks, count=2):
    """Return an answer that has been given."""
    answer = LiveAnswer(ask("m"), "m")
    hooks.watch(answer.request, answer)
    for number in range(count):
        answer.receive(TextDelta(0, f"{number}", (number,)))
    answer.receive(Finished(0, "stop"))
    answer.end("ok")
    return answer


def test_an_observer_sees_an_answer_to_its_end():
    seen, asked = Seen(), []
    hooks = RequestHooks(1, Calls())
    hooks.use([], [("a", lambda *given: asked.append(given) or seen), ("b", lambda *given: None)])
    answer = answered(hooks)
    assert asked == [(answer.request, "m", answer.id)]
    assert seen.ended.wait(60)
    assert [type(event).__name__ for event in seen.events[:-1]] == [
        "TextDelta", "TextDelta", "Finished",
    ]  # fmt: skip
    assert seen.events[-1] == ("ok", 2)


def test_observers_that_raise_or_hang_delay_no_answer():
    stuck, good = Seen(), Seen()
    stuck.gate.clear()
    hooks = RequestHooks(1, Calls())
    hooks.use(
        [], [("r", lambda *given: 1 / 0), ("h", lambda *given: stuck), ("z", lambda *g: good)]
    )
    try:
        assert answered(hooks, count=900).outcome == "ok"
        assert good.ended.wait(60)
        assert stuck.events == []
    finally:
        stuck.gate.set()


# --- the end of a plugin's life ---


def test_a_plugin_is_closed_once_nothing_uses_it_whatever_others_do(install):
    close = "def lmx_close(context):\n    closed.append(context.plugin)"
    good = install("good", close)
    bad = install("bad", "def lmx_close(): 1 / 0")
    stuck = install("stuck", "def lmx_close():\n    import threading; threading.Event().wait()")
    failed = install("failed", close, "def lmx_commands(): raise ValueError('no')")
    plugins = load(good, bad, stuck, failed)
    closed = []
    for name in (good, failed):
        module(name).closed = closed
    plugins.commands_by_plugin()
    assert status_of(plugins, failed).state is PluginState.FAILED
    assert closed == []
    plugins.changes.close_unused()
    assert closed == [failed]
    plugins.changes.disable(good, {})
    plugins.changes.close()
    assert closed == [failed, good]
    plugins.changes.close()
    assert closed == [failed, good]


def test_an_observer_that_is_taken_out_keeps_no_thread():
    bus = Bus([("gone", lambda event: None)])
    [thread] = [one for one in threading.enumerate() if one.name == "events to gone"]
    bus.use_observers([])
    thread.join(60)
    assert not thread.is_alive()


# --- plugins that need others ---


def needs(*names):
    return f"def lmx_requires(): return {list(names)}"


def test_a_plugin_whose_needs_are_met_is_active_and_keeps_what_it_needs(install):
    base = install("base", "def lmx_event(event): pass")
    top = install("a_top", needs(base))
    plugins = load(top, base)
    assert status_of(plugins, top).state is PluginState.ACTIVE
    with pytest.raises(ConflictError, match=f"{top} cannot do without {base}"):
        plugins.changes.disable(base, {})
    plugins.changes.disable(top, {})
    plugins.changes.disable(base, {})
    with pytest.raises(ConflictError, match=f"{top} cannot be enabled: .*{base}"):
        plugins.changes.enable(top)


def test_a_module_of_the_config_meets_a_need_under_the_name_of_its_entry_point(install, tmp_path):
    base = install("base", "def lmx_event(event): pass")
    info = tmp_path / "lmxhooks_base-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lmxhooks-base\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[lmx]\nnamed_base = {base}\n")
    top = install("top", needs("named_base"))
    assert status_of(load(top, base), top).state is PluginState.ACTIVE
    with pytest.raises(ConflictError, match=f"{top} cannot do without {base}"):
        load(top, base).changes.disable(base, {})
    assert "needs the plugin named_base" in status_of(load(top), top).reason


def test_a_plugin_that_lacks_another_is_off_and_so_is_what_needs_it(install):
    low = install("low", needs("nowhere"))
    high = install("high", needs(low))
    plugins = load(high, low)
    for name, lacks in ((low, "nowhere"), (high, low)):
        status = status_of(plugins, name)
        assert status.state is PluginState.FAILED
        assert status.reason == (
            f"MissingPluginError: it needs the plugin {lacks}, which is not active"
        )


def test_one_that_fails_later_takes_those_with_it_that_need_it(install):
    base = install("base", "def lmx_commands(): raise ValueError('no')")
    top = install("top", needs(base))
    plugins = load(base, top)
    plugins.commands_by_plugin()
    assert {status.state for status in plugins.statuses} == {PluginState.FAILED}


# --- events ---


@pytest.mark.parametrize(("caller", "key"), [("alice", "alice"), ("#7", ""), ("", "")])
async def test_the_end_of_a_request_says_whose_it_was_and_where_it_went(tmp_path, caller, key):
    async with running_kernel(tmp_path, {"m": FakeModel(load_error="no")}) as stage:
        with await stage.kernel.generate(ask("M", caller=caller)):
            pass
        [event] = await stage.until(RequestFinished)
        assert (event.key, event.caller) == (key, caller)
        assert (event.route.asked, event.route.model) == ("M", "m")
