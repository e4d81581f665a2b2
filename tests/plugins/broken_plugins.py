"""Plugins that are broken in every way that was thought of, as sources of modules.

Those of :data:`OFF` are of no use and must be off, with a reason that has the given words. Those of
:data:`HURT` work in part: what works is used, and their state says what does not.
"""

from __future__ import annotations

HEAD = """
import threading
from contextlib import asynccontextmanager
from attrs import field, frozen
from lmx_kernel.errors import ForbiddenError
from lmx_kernel.hookspecs import hookimpl
from lmx_kernel.interfaces import SettingsSection
from lmx_kernel.types import Location

hang = threading.Event().wait


class Page:
    async def on_get(self, req, resp):
        resp.media = {"from": NAME}


class Surface:
    scope = ""

    def __init__(self):
        self.name, self.prefix = NAME, f"/{NAME}"

    def routes(self):
        return [(self.prefix, Page())]

    def operations(self):
        return []

    def render_error(self, error):
        return {"error": error.message}

    def example(self, url, model):
        return ""


class Source:
    def __init__(self):
        self.name = NAME

    def locations(self):
        return []

    def delete(self, card):
        pass


class Monitor:
    interval_s = 0.01

    def __init__(self):
        self.name = NAME

    def sample(self):
        return {"x": 1}


class Router:
    def __init__(self):
        self.name = NAME

    def route(self, request, models, context):
        return None


def offer(hook, *objects):
    source = f"def {hook}({ARGUMENTS.get(hook, 'settings')}): return OBJECTS"
    scope = {"OBJECTS": objects}
    exec(source, scope)
    globals()[hook] = hookimpl(scope[hook])


ARGUMENTS = {"lmx_settings": "", "lmx_api_surfaces": "kernel", "lmx_job_kinds": "kernel"}
"""
SURFACE = """
class Mine(Surface):
    {body}

offer("lmx_api_surfaces", Mine())
"""


def surface(body):
    return SURFACE.format(body=body)


def routes(template, resource="Page()"):
    return surface(f"def routes(self): return [({template}, {resource})]")


GOOD = surface("pass")
OFF = {
    "raises": ("raise RuntimeError('on purpose')", "on purpose"),
    "exits": ("raise SystemExit(3)", "SystemExit: 3"),
    "hangs": ("hang()", "no answer within"),
    "imports": ("import no_such_module", "no_such_module"),
    "coroutine": ("@hookimpl\nasync def lmx_routers(settings): return []", "coroutine"),
    "unknown": ("@hookimpl\ndef lmx_nothing(): pass", "lmx_nothing"),
    "signature": ("@hookimpl\ndef lmx_routers(teapot): return []", "teapot"),
    "hook_raises": ("@hookimpl\ndef lmx_routers(settings): raise ValueError('bad')", "bad"),
    "hook_hangs": ("@hookimpl\ndef lmx_routers(settings): hang()", "no answer within"),
    "wrong_types": ("offer('lmx_routers', 42)", "the router 42 has no name"),
    "not_a_list": ("@hookimpl\ndef lmx_monitors(settings): return 5", "int"),
    "section_taken": ("offer('lmx_settings', SettingsSection('server', Page))", "LMX's own"),
    "section_class": ("offer('lmx_settings', SettingsSection(NAME, Page))", "no attrs class"),
    "section_field": (
        "@frozen\nclass S:\n    x: int\noffer('lmx_settings', SettingsSection(NAME, S))",
        "x of the section section_field needs a default",
    ),
    "router_bare": ("class R: name = NAME\noffer('lmx_routers', R())", "has no route()"),
    "source_bare": ("class S: name = NAME\noffer('lmx_model_sources', S())", "no locations()"),
    "backend_bare": ("class B: name = NAME\noffer('lmx_backends', B())", "no identify()"),
    "backend_taken": (
        "class B:\n    name = 'gguf'\n    identify = verify = estimate = worker_env = print\n"
        "    device_memory = print\noffer('lmx_backends', B())",
        "gguf is offered by both lmx-plugin-gguf",
    ),
    "monitor_bare": ("class M(Monitor): interval_s = None\noffer('lmx_monitors', M())", "interval"),
    "job_bare": ("class J: name = unit = NAME\noffer('lmx_job_kinds', J())", "has no key()"),
    "twins": ("offer('lmx_routers', Router(), Router())", "two objects"),
    "routes_raise": (surface("def routes(self): raise RuntimeError('boom')"), "boom"),
    "routes_hang": (surface("def routes(self): hang()"), "no answer within"),
    "routes_bare": (routes("'/a'", "42"), "answers no method"),
    "routes_type": (routes("7"), "the path 7"),
    "no_slash": (routes("'no-slash'"), "does not begin with /"),
    "bad_path": (routes("'/bad/{1x}'"), "cannot be served"),
    "path_taken": (routes("'/v1/models'"), "/v1/models is a path of both"),
    "health_taken": (routes("'/health'"), "/health is a path of both"),
    "no_prefix": (surface("def __init__(self): self.name = NAME"), "has no prefix"),
    "bad_prefix": (surface("def __init__(self): self.name = self.prefix = 'x'"), "begin with /"),
    "operations": (surface("def operations(self): return 1 / 0"), "operations() of operations"),
    "operation_type": (surface("def operations(self): return [42]"), "gave 42"),
    "error_raises": (surface("def render_error(self, error): return 1 / 0"), "ZeroDivision"),
    "error_text": (surface("def render_error(self, error): return 'x'"), "gave 'x'"),
    "lifespan": (
        "@hookimpl\n@asynccontextmanager\nasync def lmx_lifespan(kernel):\n    yield 1 / 0",
        "ZeroDivision",
    ),
    "life_type": ("@hookimpl\ndef lmx_lifespan(kernel): return 42", "int"),
}
HURT = {
    "source_hangs": (
        "class S(Source):\n    def locations(self): hang()\noffer('lmx_model_sources', S())",
        ("active", "muted"),
        "",
    ),
    "source_type": (
        "class S(Source):\n    def locations(self): return [42]\noffer('lmx_model_sources', S())",
        ("degraded",),
        "locations() gave 42",
    ),
    "sample_text": (
        "class M(Monitor):\n    def sample(self): return {'x': 'text'}\noffer('lmx_monitors', M())",
        ("muted",),
        "'text', and not a number",
    ),
    "sample_raises": (
        "class M(Monitor):\n    def sample(self): raise RuntimeError('dry')\n"
        "offer('lmx_monitors', M())",
        ("muted",),
        "dry",
    ),
    "sample_hangs": (
        "class M(Monitor):\n    def sample(self): hang()\noffer('lmx_monitors', M())",
        ("active", "muted"),
        "",
    ),
    "route_raises": (
        "class P:\n    async def on_get(self, req, resp): raise RuntimeError('in a route')\n"
        + routes("'/route_raises'", "P()"),
        ("degraded",),
        "in a route",
    ),
    "route_exits": (
        "class P:\n    async def on_get(self, req, resp): raise SystemExit(1)\n"
        + routes("'/route_exits'", "P()"),
        ("degraded",),
        "sys.exit(1)",
    ),
    "router_text": (
        "class R(Router):\n    def route(self, *_): return 'm'\noffer('lmx_routers', R())",
        ("degraded",),
        "not a Decision",
    ),
    "life_hangs": (
        "import asyncio\n@hookimpl\n@asynccontextmanager\n"
        "async def lmx_lifespan(kernel):\n    await asyncio.Event().wait()\n    yield",
        ("active",),
        "",
    ),
    "example": (surface("def example(self, url, model): return 1 / 0"), ("active",), ""),
    "nothing": ("@hookimpl\ndef lmx_routers(settings): return None", ("active",), ""),
    "listener": (
        "@hookimpl\ndef lmx_event(event): raise RuntimeError('deaf')",
        ("degraded", "muted"),
        "deaf",
    ),
}


def module(name, body):
    """Return the source of the module of a plugin."""
    return f"NAME = {name!r}\n{HEAD}\n{body}\n"
