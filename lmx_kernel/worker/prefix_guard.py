"""The store on disk as the loop sees it: whatever goes wrong with it ends no answer."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from attrs import field, frozen

from lmx_kernel.engine.protocol import Engine, Sequence, Step
from lmx_kernel.engine.states import HasPortableStates, PortableStates, WholeStates
from lmx_kernel.prefixes.store import PrefixStore
from lmx_kernel.worker.prefix_keeper import PrefixKeeper
from lmx_kernel.worker.snapshot_keeper import SnapshotKeeper
from lmx_kernel.worker.state_keeper import Fetched, StateKeeper

WAIT_S = 5.0
"""A sequence waits for the disk, which may have hung, so long at most for each batch of states."""

Keeper = StateKeeper[Any, Any]
T = TypeVar("T")


@frozen(eq=False)
class Overdue(Fetched):
    """Delivered where states were not read in time."""

    states: list[bytearray] = field(factory=list)
    read_s: float = 0.0


class PrefixGuard:
    """Passes calls on to a keeper of blocks, or of whole states. After an error of it, or where the
    disk does not answer, there is none until the next load: everything is computed, and one warning
    says why.

    All but :meth:`close` is called on the engine's thread.

    :param store: None for nothing on disk.
    :param deliver: called in another thread with what has to reach :meth:`take`.
    """

    def __init__(
        self, engine: Engine, store: PrefixStore | None, deliver: Callable[[Fetched], None]
    ) -> None:
        self._deliver = deliver
        self._store = store
        self._keeper: Keeper | None = None
        if store is not None and isinstance(engine, HasPortableStates) and engine.states:
            self._keeper = _keeper_of(engine.states, store, deliver)
        self._waiting: dict[int, Sequence] = {}
        self._overdue: Overdue | None = None
        self._timer: threading.Timer | None = None

    def begin(self, sequence: Sequence) -> bool:
        """As :meth:`StateKeeper.begin`."""
        if not self._call(lambda keeper: keeper.begin(sequence), otherwise=False):
            return False
        self._waiting[sequence.id] = sequence
        if self._timer is None:
            self._set_timer()
        return True

    def take(self, fetched: Fetched) -> list[Sequence]:
        """Let the engine take over what was read; return the sequences that need wait no longer."""
        if isinstance(fetched, Overdue):
            if fetched is not self._overdue:
                return []  # what it was for has come meanwhile
            self._give_up(f"nothing was read for {WAIT_S:g} s")
        nobody: list[Sequence] = []
        ready = self._call(lambda keeper: keeper.take(fetched), otherwise=nobody)
        if self._keeper is None:
            ready = list(self._waiting.values())
        for sequence in ready:
            self._waiting.pop(sequence.id, None)
        self._set_timer()
        return ready

    def stepped(self, step: Step) -> None:
        """Store what a step completed."""
        self._call(lambda keeper: keeper.stepped(step), otherwise=None)

    def end(self, sequence_id: int) -> None:
        """Store the rest of a sequence, which is about to be removed from the engine."""
        self._call(lambda keeper: keeper.end(sequence_id), otherwise=None)

    def removed(self) -> None:
        """Store what the engine kept of the sequence that was ended last."""
        self._call(lambda keeper: keeper.removed(), otherwise=None)

    def figures(self) -> dict[str, float]:
        """As :meth:`StateKeeper.figures`; empty without a keeper."""
        return self._call(lambda keeper: keeper.figures(), otherwise={})

    def close(self) -> None:
        """Write what waits, for a moment at most; from any thread."""
        keeper = self._keeper
        if keeper is not None:
            keeper.close()

    def _call(self, call: Callable[[Keeper], T], *, otherwise: T) -> T:
        if self._keeper is None:
            return otherwise
        try:
            return call(self._keeper)
        except Exception as error:  # noqa: BLE001 - no answer depends on it
            traceback.print_exc()
            self._give_up(f"{type(error).__name__}: {error}")
            return otherwise

    def _give_up(self, why: str) -> None:
        self._keeper = None
        if self._store is not None:
            self._store.warn(f"prefixes are not kept on disk until the next load: {why}")

    def _set_timer(self) -> None:
        """Have the wait end for the sequences that wait now, if any do."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._overdue = None
        if self._waiting:
            self._overdue = Overdue()
            self._timer = threading.Timer(WAIT_S, self._deliver, (self._overdue,))
            self._timer.daemon = True
            self._timer.start()


def _keeper_of(
    states: PortableStates | WholeStates, store: PrefixStore, deliver: Callable[[Fetched], None]
) -> Keeper:
    if isinstance(states, WholeStates):
        return SnapshotKeeper(states, store, deliver)
    return PrefixKeeper(states, store, deliver)
