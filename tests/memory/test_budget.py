"""What all models together may take."""

from __future__ import annotations

from lmx_kernel.kernel.assembly import assemble
from lmx_kernel.kernel.boot import boot
from lmx_kernel.memory.budget import MemorySettings, free_bytes, machine_bytes
from lmx_kernel.testing.fake import FakeBackend
from lmx_kernel.testing.harness import write_config


def test_a_budget_is_what_the_config_says_or_the_machine_less_the_reserve():
    assert MemorySettings(budget_bytes=123).resolve() == 123
    assert MemorySettings(reserve_share=0.25).resolve() == int(machine_bytes() * 0.75)
    assert 0 < free_bytes() <= machine_bytes()


def test_a_device_with_less_memory_than_the_machine_bounds_it():
    assert MemorySettings(reserve_share=0.5).resolve(1000) == 500
    assert MemorySettings(reserve_share=0.0).resolve(2**60) == machine_bytes()
    assert MemorySettings(budget_bytes=123).resolve(1000) == 123


async def test_backends_say_what_their_device_has(tmp_path, monkeypatch):
    monkeypatch.setattr(FakeBackend, "device_bytes", lambda self, settings: 1000)
    config = write_config(tmp_path, (), "[memory]\nreserve_share = 0.1\n")
    assembly = assemble(boot(config, environ={"LMX_HOME": str(tmp_path)}))
    assembly.backends.probe_devices()
    assert assembly.kernel.status().memory_budget_bytes == 900
