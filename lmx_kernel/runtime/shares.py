"""What each caller was served: the state behind the turns in all queues."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable

from attrs import define, field

from lmx_kernel.errors import RateLimitedError
from lmx_kernel.runtime.answer import LiveAnswer
from lmx_kernel.types import (
    ANONYMOUS,
    Embedded,
    Event,
    GenerationRequest,
    Priority,
    PromptProgress,
    TextDelta,
)

MAX_ACCOUNTS = 1024  # of callers with keys; those that were idle for longest are forgotten


@define
class Account:
    """What one caller was served since the daemon's start.

    :ivar served: by priority, tokens over weight, from where its queue's other callers were when it
        was last idle.
    :ivar open: by priority, how many requests have not ended.
    :ivar prompt_tokens: those that were computed.
    :ivar spent: tokens that count against ``tokens_per_minute`` at ``spent_at``, in seconds.
    """

    served: dict[Priority, float] = field(factory=lambda: defaultdict(float))
    open: dict[Priority, int] = field(factory=lambda: defaultdict(int))
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    spent: float = 0.0
    spent_at: float = 0.0


class Shares:
    """Counts the tokens that callers were served, over all models.

    The counters are those of VTC (Sheng et al., "Fairness in Serving Large Language Models", OSDI
    2024), which carries start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996) over to
    tokens that are charged as they are computed. As there, a caller that was idle saves up nothing:
    it begins at the virtual time, which is the counter of the caller that was last given a turn.
    Each priority has a virtual time of its own.

    :param now: monotonic seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.accounts: dict[str, Account] = {}
        self._virtual = defaultdict[Priority, float](float)
        self._now = now

    def enter(self, request: GenerationRequest) -> None:
        """Note a new request.

        :raises RateLimitedError: its caller has had its tokens of this minute.
        """
        account = self.accounts.setdefault(request.caller, Account())
        self._check_rate(account, request)
        priority = request.priority
        if not account.open[priority]:
            account.served[priority] = max(account.served[priority], self._virtual[priority])
        account.open[priority] += 1
        account.requests += 1

    def leave(self, request: GenerationRequest) -> None:
        """Note the end of a request."""
        account = self.accounts[request.caller]
        account.open[request.priority] -= 1
        if any(account.open.values()):
            return
        del self.accounts[request.caller]
        if not request.caller.startswith(ANONYMOUS):
            self.accounts[request.caller] = account  # now the last one
            self._forget_surplus()

    def start(self, request: GenerationRequest) -> None:
        """Note that a request was given a turn."""
        served = self.accounts[request.caller].served[request.priority]
        self._virtual[request.priority] = max(self._virtual[request.priority], served)

    def charge(self, answer: LiveAnswer, event: Event) -> None:
        """Count what an event shows to be computed for a request. A prompt counts once, however
        often it is computed again after a pause that its caller did not ask for.
        """
        account, request = self.accounts[answer.request.caller], answer.request
        if isinstance(event, TextDelta):
            tokens = len(event.tokens)
            account.completion_tokens += tokens
        elif tokens := _prompt_tokens(answer, event):
            account.prompt_tokens += tokens
        account.served[request.priority] += tokens / request.terms.weight
        account.spent += tokens

    def _check_rate(self, account: Account, request: GenerationRequest) -> None:
        """A bucket that holds a minute's tokens and is refilled all the time."""
        most, now = request.terms.tokens_per_minute, self._now()
        if most is None:
            return
        per_s = most / 60
        account.spent = max(0.0, account.spent - (now - account.spent_at) * per_s)
        account.spent_at = now
        if account.spent >= most:
            raise RateLimitedError(
                f"{request.caller} may use {most} tokens a minute, and has used them",
                retry_after_s=math.floor((account.spent - most) / per_s) + 1,
            )

    def _forget_surplus(self) -> None:
        if len(self.accounts) > MAX_ACCOUNTS:
            idle = (name for name, one in self.accounts.items() if not any(one.open.values()))
            del self.accounts[next(idle)]  # the caller whose request has just ended is idle


def _prompt_tokens(answer: LiveAnswer, event: Event) -> int:
    """Return how many tokens of a prompt an event shows to be computed."""
    if isinstance(event, Embedded):
        return answer.prompt_tokens or 0
    if not isinstance(event, PromptProgress) or event.processed < event.total:
        return 0
    return 0 if answer.resume.candidates[event.candidate].tokens else event.total - event.cached
