"""Background tasks that are started again when they fail."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
HEALTHY_S = 60.0
"""A task that ran for so long begins with the first pause again."""

log = structlog.get_logger(__name__)


class TaskSupervisor:
    """Owns the daemon's background tasks. One that fails, or is cancelled by anybody else, is
    logged and started again after a pause that doubles with each failure.
    """

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._problems: dict[str, str] = {}

    @property
    def problems(self) -> dict[str, str]:
        """The tasks that are down at the moment, by name, and why."""
        return dict(self._problems)

    def start(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run ``work`` until it returns.

        :param name: unique; a running task of that name is stopped first.
        """
        self.stop(name)
        self._tasks[name] = asyncio.create_task(self._supervise(name, work))

    def stop_all(self) -> None:
        """Stop every task for good."""
        self.stop(*self._tasks)

    def stop(self, *names: str) -> None:
        """Stop tasks for good; unknown names are ignored."""
        for name in names:
            task = self._tasks.pop(name, None)
            self._problems.pop(name, None)
            if task is not None:
                task.cancel()

    async def _supervise(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        loop, pause_s = asyncio.get_running_loop(), FIRST_PAUSE_S
        while True:
            begun = loop.time()
            problem = await _run(name, work)
            if problem is None:
                return
            if loop.time() - begun > HEALTHY_S:
                pause_s = FIRST_PAUSE_S
            self._problems[name] = problem
            log.error("background_task_failed", task=name, reason=problem, retry_s=pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            self._problems.pop(name, None)


async def _run(name: str, work: Callable[[], Awaitable[None]]) -> str | None:
    """Run ``work`` in a task of its own; return how it failed, or None if it returned."""
    task = asyncio.ensure_future(work())
    if isinstance(task, asyncio.Task):
        task.set_name(name)
    try:
        await asyncio.wait({task})
    finally:
        task.cancel()  # when this supervisor is cancelled
    if task.cancelled():
        return "it was cancelled"
    error = task.exception()
    return None if error is None else f"{type(error).__name__}: {error}".strip(": ")
