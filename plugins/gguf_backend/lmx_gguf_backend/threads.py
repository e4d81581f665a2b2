"""How many threads compute a step.

Threads meet hundreds of times in a step; where other processes keep the cores busy, each meeting
waits for the one that is off its core, and fewer threads are faster. Measured on 2 cores,
SmolLM2-135M Q4_1, tok/s of one stream (four streams) with 2 threads | 1 thread: quiet 125 (180) |
80 (103); beside one busy process 36 (68) | 82 (104); beside two 29 (74) | 62 (73). Prompts were
never faster with fewer.
"""

from __future__ import annotations

from attrs import define

CROWDED_SHARE = 0.65
"""Of the CPU time that all threads could get: 0.97 quiet, 0.8 beside a process that takes a fifth
of a core, 0.5 beside one that takes a whole one."""

CROWDED_S = 2.0
"""Then few threads are used for so long, and all are tried again."""

WEIGHT = 0.3


@define
class Threads:
    """The number of threads for steps without prefill.

    :param most: for all other steps, and while they get the CPU time they ask for.
    :param adapts: False where the work is not the CPU's, which looks the same as waiting.
    """

    most: int
    adapts: bool = True
    _share: float = 1.0
    _few_until_s: float = 0.0

    def count(self, now_s: float) -> int:
        """Return how many threads a step of running streams gets."""
        return max(self.most // 2, 1) if now_s < self._few_until_s else self.most

    def observe(self, count: int, wall_s: float, cpu_s: float, now_s: float) -> None:
        """Take in what time such a step took, and what CPU time it got."""
        if not self.adapts or count < self.most or wall_s <= 0:
            return
        self._share += WEIGHT * (cpu_s / (wall_s * count) - self._share)
        if self._share < CROWDED_SHARE:
            self._few_until_s = now_s + CROWDED_S
            self._share = 1.0
