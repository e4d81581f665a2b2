"""The states of the fake backend's sequences, which outlive its workers."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as Seq
from pathlib import Path

from attrs import define

from lmx_kernel.engine.protocol import Sequence
from lmx_kernel.engine.running import RunningSequence, RunningSet
from lmx_kernel.engine.states import STATE_TOKENS
from lmx_kernel.engine.token_runs import common
from lmx_kernel.types import Sampling


@define(eq=False, kw_only=True)
class Run(RunningSequence):
    """A sequence; its answer is what it ``says``, or counts on from ``start``."""

    start: int
    says: bytes
    is_wrong: bool = False

    @classmethod
    def of(cls, tokens: Seq[int], cache_space: str, *, is_wrong: bool = False) -> Run:
        """Return what holds ``tokens``."""
        request = Sequence(
            id=-1, tokens=list(tokens), produced=0, sampling=Sampling(), cache_space=cache_space
        )
        return cls(request=request, done=len(tokens), start=0, says=b"", is_wrong=is_wrong)

    def beginning(self, length: int) -> Run:
        """Return what holds its first tokens."""
        return Run.of(self.tokens[:length], self.cache_space, is_wrong=self.is_wrong)

    def shared(self, other: Run, *, is_whole: bool) -> int:
        """Return how many tokens it can take over; never all.

        :param is_whole: none or all of those of the other.
        """
        found = min(common(self.tokens, other.tokens), other.done, len(self.tokens) - 1)
        return 0 if is_whole and found < other.done else found

    @property
    def made(self) -> int:
        """Tokens of the answer so far."""
        return len(self.tokens) - self.prompt_length + self.request.produced


@define
class FakeStates:
    """The state of a block is its tokens and the content of the model's file: a state that belongs
    to anything else shows in the answer.
    """

    _path: Path
    _running: RunningSet[Run]
    _kept: deque[Run]
    identity: str = "fake 1"
    prompt_token_s: float = 1.0

    def computed(self, sequence_id: int) -> int:
        return next((run.done for run in self._running if run.id == sequence_id), 0)

    def export_block(self, sequence_id: int, start: int) -> memoryview | None:
        run = next(run for run in self._running if run.id == sequence_id)
        return memoryview(self._state(run.tokens[start : start + STATE_TOKENS]))

    def held(self, tokens: Seq[int], cache_space: str) -> int:
        others = [run for run in (*self._kept, *self._running) if run.cache_space == cache_space]
        return max((common(tokens, run.tokens) for run in others), default=0)

    def import_blocks(
        self, tokens: Seq[int], cache_space: str, start: int, states: Seq[bytearray]
    ) -> bool:
        places = range(start, len(tokens), STATE_TOKENS)
        right = [self._state(tokens[place : place + STATE_TOKENS])[:-1] for place in places]
        pairs = zip(states, right, strict=True)  # the last one may go on
        is_right = all(found.startswith(expected) for found, expected in pairs)
        self._kept.append(Run.of(tokens, cache_space, is_wrong=not is_right))
        return True

    def _state(self, tokens: Seq[int]) -> bytes:
        return _state_of(self._path, tokens)


@define
class FakeWholeStates:
    """The same for states that cannot be cut."""

    _path: Path
    _kept: deque[Run]
    identity: str = "fake whole 1"
    prompt_token_s: float = 1.0

    def held(self, tokens: Seq[int], cache_space: str) -> int:
        new = Run.of(tokens, cache_space)
        others = [run for run in self._kept if run.cache_space == cache_space]
        return max((new.shared(run, is_whole=True) for run in others), default=0)

    def export_whole(self, tokens: Seq[int], cache_space: str) -> memoryview | None:
        return memoryview(_state_of(self._path, tokens))

    def import_whole(self, tokens: Seq[int], cache_space: str, state: bytearray) -> bool:
        is_wrong = state != _state_of(self._path, tokens)
        self._kept.append(Run.of(tokens, cache_space, is_wrong=is_wrong))
        return True


def _state_of(path: Path, tokens: Seq[int]) -> bytes:
    return path.read_bytes() + repr(list(tokens)).encode()
