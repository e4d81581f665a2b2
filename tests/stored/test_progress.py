"""What an answer said over several runs: each thing once, and what it cost in all."""

from __future__ import annotations

from attrs import evolve

from lmx_kernel.stored.file import Unfinished
from lmx_kernel.stored.progress import Progress
from lmx_kernel.stored.reading import NO_USAGE
from lmx_kernel.testing.harness import ask
from lmx_kernel.types import Admitted, Finished, PromptProgress, TextDelta

FIRST = [Admitted(9), PromptProgress(0, 4, 9, 0), PromptProgress(0, 9, 9, 0)]


def resumed(events, usage=None):
    kept = Unfinished(
        request=ask("m", said=(1,)), created_at=100.0, doubt=1, usage=usage, events=tuple(events)
    )
    return Progress.of(kept)


def test_a_later_run_says_nothing_of_the_prompt_again():
    progress = resumed([*FIRST, TextDelta(0, "a", (2,))])
    text = TextDelta(0, "b", (3,))
    progress.add([Admitted(9), PromptProgress(0, 10, 10, 9), text])
    assert progress.take() == (4, [text])


def test_a_later_run_says_how_far_the_prompt_is_where_that_is_new():
    progress = resumed(FIRST[:2])
    progress.add(FIRST)
    assert progress.take() == (2, FIRST[2:])


def test_the_next_run_goes_on_after_all_tokens():
    progress = resumed([*FIRST, TextDelta(0, "a", (2, 3)), TextDelta(0, "", ())])
    assert progress.resumed_request == ask("m", said=(1, 2, 3))
    progress.add([TextDelta(0, "b", (4,)), Finished(0, "stop")])
    assert progress.resumed_request.said == (1, 2, 3, 4)
    assert progress.is_finished


def test_times_are_counted_from_the_start_of_the_answer():
    latest = evolve(
        NO_USAGE, cached_tokens=8, completion_tokens=7, queue_s=1.0, first_token_s=2.0, total_s=3.0
    )
    usage = resumed([]).usage(latest, began_at=110.0)
    assert (usage.queue_s, usage.first_token_s, usage.total_s) == (11.0, 12.0, 13.0)
    usage = resumed([], usage).usage(latest, began_at=150.0)
    assert (usage.queue_s, usage.first_token_s, usage.total_s) == (11.0, 12.0, 53.0)
    assert (usage.cached_tokens, usage.completion_tokens) == (8, 7)
