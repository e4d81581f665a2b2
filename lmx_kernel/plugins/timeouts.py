"""Running other people's code for a limited time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


def call_all(calls: dict[str, Callable[[], object]], timeout_s: float) -> dict[str, object]:
    """Run plugin code, each call in a thread of its own.

    Returns for each name the value, or the exception; a TimeoutError when nothing at all finished
    for ``timeout_s``: what still runs then is hanging, and is left behind.
    """
    outcomes: queue.SimpleQueue[tuple[str, object]] = queue.SimpleQueue()

    def run(name: str, call: Callable[[], object]) -> None:
        try:
            outcomes.put((name, call()))
        # A plugin may fail in any way, including sys.exit(); the caller gets to see it.
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
