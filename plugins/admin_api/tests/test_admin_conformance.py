"""What every surface and every command does; the commands ask a daemon, and here is none."""

from __future__ import annotations

from lmx_kernel.testing.conformance.command import CommandConformance


class TestStatus(CommandConformance):
    module = "lmx_admin_api.plugin"
    arguments = ("status",)
    needs_daemon = True


class TestUnload(TestStatus):
    arguments = ("unload", "some-model")
