"""Calls code of plugins with a timeout."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


def call_all(calls: dict[str, Callable[[], object]], timeout_s: float) -> dict[str, object]:
    """Call all functions at the same time, each in a thread of its own.

    :param timeout_s: when no call has finished for this long, those that still run are abandoned.
    :returns: the value or the exception of each call by name; a TimeoutError for abandoned calls.
    """
    outcomes: queue.SimpleQueue[tuple[str, object]] = queue.SimpleQueue()

    def run(name: str, call: Callable[[], object]) -> None:
        try:
            outcomes.put((name, call()))
        # Plugins may fail in any way, including sys.exit(); the caller gets the exception.
        except (Exception, SystemExit) as error:  # noqa: BLE001
            outcomes.put((name, error))

    for name, call in calls.items():
        threading.Thread(target=run, args=(name, call), daemon=True).start()
    done: dict[str, object] = {}
    while len(done) < len(calls):
        try:
            name, outcome = outcomes.get(timeout=timeout_s)
        except queue.Empty:
            hung = TimeoutError(f"no answer within {timeout_s:g} seconds")
            return {name: done.get(name, hung) for name in calls}
        done[name] = outcome
    return done
