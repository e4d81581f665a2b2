"""What every router, every finding and every command does."""

from __future__ import annotations

from lmx_kernel.testing.conformance.command import CommandConformance
from lmx_kernel.testing.conformance.findings import FindingsConformance
from lmx_kernel.testing.conformance.router import RouterConformance

RULES = """
[[router_rules.rules]]
name = "code"
task = ["code"]
models = ["acme/Large-9B", "middle"]

[[router_rules.rules]]
name = "all"
models = ["small", "broken", "middle"]
"""


class TestRules(RouterConformance):
    module = "lmx_router_rules.plugin"
    skips_problems = False  # a rule names what its owner wants; the kernel skips it, and says why

    def config(self, folder):
        return RULES


class TestFindings(FindingsConformance):
    module = "lmx_router_rules.plugin"

    def config(self, folder):
        return RULES


class TestRoute(CommandConformance):
    module = "lmx_router_rules.plugin"
    arguments = ("route", "hello")
    needs_daemon = True
