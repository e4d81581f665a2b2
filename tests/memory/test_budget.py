"""What all models together may take."""

from __future__ import annotations

from lmx_kernel.cli.diagnostics import run_diagnostics
from lmx_kernel.kernel.assembly import assemble
from lmx_kernel.kernel.boot import boot
from lmx_kernel.kernel.scan import scan
from lmx_kernel.memory.budget import MemorySettings
from lmx_kernel.memory.machine import free_bytes, machine_bytes
from lmx_kernel.memory.sizes import MIB
from lmx_kernel.testing.fake import FakeBackend
from lmx_kernel.testing.harness import write_config
from lmx_kernel.types import DeviceMemory


def test_a_budget_is_what_the_config_says_or_the_machine_less_the_reserve():
    assert MemorySettings(budget_bytes=123).resolve() == 123
    assert MemorySettings(reserve_share=0.25).resolve() == int(machine_bytes() * 0.75)
    assert 0 < free_bytes() <= machine_bytes()


def test_a_device_with_less_memory_than_the_machine_bounds_it():
    device, large = DeviceMemory(1000), DeviceMemory(2**60)
    assert MemorySettings(reserve_share=0.5).resolve([device]) == 500
    assert MemorySettings(reserve_share=0.5).resolve([large, device]) == 500
    assert MemorySettings(reserve_share=0.0).resolve([large]) == machine_bytes()
    assert MemorySettings(budget_bytes=123).resolve([device]) == 123


def test_what_a_device_may_use_of_the_machine_bounds_it_without_a_further_reserve():
    device, most = DeviceMemory(1000, is_shared=True), DeviceMemory(2**60, is_shared=True)
    assert MemorySettings(reserve_share=0.5).resolve([device]) == 1000
    assert MemorySettings(reserve_share=0.5).resolve([most]) == machine_bytes() // 2
    assert MemorySettings(reserve_share=0.5).resolve([DeviceMemory(1200), device]) == 600


async def test_backends_say_what_their_device_has(tmp_path, monkeypatch):
    monkeypatch.setattr(FakeBackend, "device_memory", lambda self, settings: DeviceMemory(1000))
    config = write_config(tmp_path, (), "[memory]\nreserve_share = 0.1\n")
    assembly = assemble(boot(config, environ={"LMX_HOME": str(tmp_path)}))
    assembly.backends.probe_devices()
    assert assembly.kernel.status().memory_budget_bytes == 900


async def test_a_backend_that_cannot_tell_leaves_the_machine_s_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(FakeBackend, "device_memory", lambda self, settings: 1 // 0)
    config = write_config(tmp_path, (), "[memory]\nreserve_share = 0.1\n")
    assembly = assemble(boot(config, environ={"LMX_HOME": str(tmp_path)}))
    assembly.backends.probe_devices()
    assert assembly.kernel.status().memory_budget_bytes == int(machine_bytes() * 0.9)


def test_doctor_says_what_the_device_leaves(tmp_path, monkeypatch):
    monkeypatch.setattr(
        FakeBackend, "device_memory", lambda self, settings: DeviceMemory(100 * MIB)
    )
    config = write_config(tmp_path, (), "[memory]\nreserve_share = 0.1\n")
    booted = boot(config, environ={"LMX_HOME": str(tmp_path)})
    findings = run_diagnostics(booted, scan(booted))
    [memory] = [finding for finding in findings if finding.subject == "memory"]
    assert memory.text.startswith("models may take 90 MiB of ")
