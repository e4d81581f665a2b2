"""What LMX expects of a listener to events."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

import attrs
import psutil
import pytest

from lmx_kernel.events import KernelEvent
from lmx_kernel.plugins.manager import Plugins
from lmx_kernel.testing.conformance.plugin import PluginConformance, check_active
from lmx_kernel.types import Usage

KINDS: tuple[type[Any], ...] = get_args(KernelEvent)
MANY, MOST_S = 500, 0.005
SPECIAL = 'a "quoted"\nname, é 🙂 \\ \x00'
USAGE = Usage(
    prompt_tokens=7, cached_tokens=3, completion_tokens=5,
    queue_s=0.1, first_token_s=None, total_s=1.5,
)  # fmt: skip
VALUES: dict[Any, Any] = {str: SPECIAL, int: 3, float: 1.5, Usage: USAGE}

Tell = Callable[[KernelEvent], object]


def make_event(kind: type[Any]) -> KernelEvent:
    """Return an event of a class, with some value in each field."""
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for field in attrs.fields(kind):
        hint = hints[field.name]
        if hint in VALUES:
            values[field.name] = VALUES[hint]
        elif field.default is attrs.NOTHING:
            values[field.name] = next((VALUES[one] for one in get_args(hint) if one in VALUES), {})
    event: KernelEvent = kind(**values)
    return event


class ListenerConformance(PluginConformance):
    """For a plugin with the hook ``lmx_event``."""

    def seen(self, home: Path) -> Sequence[str] | None:
        """Return the names of the classes of the events that the listener has kept, oldest first;
        None if it keeps none.

        :param home: LMX's own folder.
        """
        return None

    @pytest.fixture
    def tell(self, plugins: Plugins) -> Tell:
        """Tells the listener an event, as the event bus does."""
        check_active(plugins, self.module)
        found = dict(plugins.observers())
        assert self.module in found, "it has no hook lmx_event"
        return found[self.module]

    @pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
    def test_it_bears_every_event(self, tell: Tell, home: Path, kind: type[Any]) -> None:
        assert tell(make_event(kind)) is None
        seen = self.seen(home)
        assert seen is None or list(seen) == [kind.__name__]

    def test_events_stay_in_order(self, tell: Tell, home: Path) -> None:
        kinds = KINDS * 3
        for kind in kinds:
            tell(make_event(kind))
        seen = self.seen(home)
        assert seen is None or list(seen) == [kind.__name__ for kind in kinds]

    def test_each_event_is_kept_at_once(self, tell: Tell, home: Path) -> None:
        """What waits in memory is lost when the daemon is killed."""
        for number, kind in enumerate(KINDS, 1):
            tell(make_event(kind))
            seen = self.seen(home)
            assert seen is None or len(seen) == number

    def test_it_goes_on_after_a_restart(self, tell: Tell, home: Path, plugins: Plugins) -> None:
        tell(make_event(KINDS[0]))
        dict(plugins.observers())[self.module](make_event(KINDS[1]))
        seen = self.seen(home)
        assert seen is None or list(seen) == [kind.__name__ for kind in KINDS[:2]]

    def test_an_event_of_a_later_version_is_borne(self, tell: Tell) -> None:
        later = attrs.make_class("SomethingNew", {"what": attrs.field()}, frozen=True)
        tell(later("x"))

    def test_it_holds_on_to_nothing(self, tell: Tell) -> None:
        tell(make_event(KINDS[0]))
        files, threads = psutil.Process().num_fds(), threading.active_count()
        for number in range(MANY):
            tell(make_event(KINDS[number % len(KINDS)]))
        assert psutil.Process().num_fds() <= files, "files stay open"
        assert threading.active_count() <= threads, "threads stay"

    def test_it_is_quick(self, tell: Tell) -> None:
        """Events that wait longer than its backlog are dropped."""
        events = [make_event(KINDS[number % len(KINDS)]) for number in range(MANY)]
        start_s = time.thread_time()
        for event in events:
            tell(event)
        each_s = (time.thread_time() - start_s) / MANY
        assert each_s < MOST_S, f"an event takes {each_s * 1000:.1f} ms of CPU time"
        start_s = time.perf_counter()
        for event in events[:5]:
            tell(event)
        assert time.perf_counter() - start_s < 1, "it waits for something"
