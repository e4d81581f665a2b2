"""Builds the status of the daemon and of its models."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmx_kernel import __version__
from lmx_kernel.interfaces import KernelStatus, KeyStatus, ModelStatus
from lmx_kernel.memory.machine import machine_bytes
from lmx_kernel.observe.statistics import Statistics
from lmx_kernel.routing.wait import expected_wait_s
from lmx_kernel.runtime.instance import Instance
from lmx_kernel.runtime.lifecycle import Lifecycle
from lmx_kernel.runtime.shares import Shares
from lmx_kernel.runtime.tenure import stays_s
from lmx_kernel.types import ANONYMOUS


def kernel_status(lifecycle: Lifecycle, statistics: Statistics, **others: Any) -> KernelStatus:
    """Return the state of everything that runs.

    :param others: the fields that the caller knows.
    """
    instances, ledger = lifecycle.instances.values(), lifecycle.ledger
    return KernelStatus(
        version=__version__,
        models=tuple(model_status(instance, statistics) for instance in instances),
        memory_machine_bytes=machine_bytes(),
        memory_budget_bytes=ledger.budget_bytes,
        memory_reserved_bytes=ledger.reserved_bytes,
        memory_available_bytes=ledger.available_bytes,
        memory_observed_bytes=sum(instance.observed_bytes for instance in instances),
        keys=tuple(_key_status(lifecycle.shares)),
        **others,
    )


def _key_status(shares: Shares) -> Iterator[KeyStatus]:
    for name, account in shares.accounts.items():
        if name and not name.startswith(ANONYMOUS):
            yield KeyStatus(
                name=name,
                open=sum(account.open.values()),
                requests=account.requests,
                prompt_tokens=account.prompt_tokens,
                completion_tokens=account.completion_tokens,
            )


def model_status(instance: Instance, statistics: Statistics) -> ModelStatus:
    """Return the state of one model."""
    spec = instance.spec
    return ModelStatus(
        id=instance.model,
        state=instance.state.value,
        pid=instance.pid,
        backend=spec.card.backend,
        context_length=spec.options.context_length,
        parallel=instance.requests.parallel or spec.options.parallel,
        loaded_share=instance.loaded_share,
        running=instance.requests.running,
        waiting=instance.requests.waiting,
        wait_s=expected_wait_s(instance, statistics.throughput(instance.model)),
        pinned=instance.pinned,
        ttl_s=stays_s(instance.ttl_s, instance.kept),
        expires_in_s=instance.expires_in_s(time.monotonic()),
        memory_bytes=instance.memory_bytes,
        observed_bytes=instance.observed_bytes,
        engine=instance.stats,
        figures=statistics.of(instance.model),
    )


def free_disk_bytes(folder: Path) -> int:
    """Return the free space on the disk of ``folder``, which need not exist yet."""
    place = next(place for place in (folder, *folder.parents) if place.exists())
    return shutil.disk_usage(place).free
