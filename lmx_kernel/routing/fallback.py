"""One attempt to place a request: the models of a decision are asked in turn."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Protocol, TypeVar

from attrs import define, field

from lmx_kernel.errors import (
    ContextOverflowError,
    LmxError,
    ModelNotFoundError,
    UnavailableError,
)
from lmx_kernel.types import Decision, ModelCard, Route, Skipped

T = TypeVar("T")


class Find(Protocol):
    """Finds a model that can take a prompt."""

    def __call__(self, name: str, prompt_tokens: int) -> Awaitable[ModelCard]: ...


@define
class Attempt:
    """What became of one decision.

    :ivar model: who took the request; "" for nobody.
    :ivar refusals: why others did not, by their names.
    """

    asked: str
    router: str
    decision: Decision
    model: str = ""
    refusals: dict[str, LmxError] = field(factory=dict)

    async def choose(
        self,
        prompt_tokens: int,
        find: Find,
        context_length: Callable[[str], int],
        take: Callable[[ModelCard, str], T],
    ) -> T | None:
        """Let the first model take the request that can. The prompt is only estimated, so its
        length alone refuses nobody: if all others cannot, those that seemed too small are asked
        again, the largest first.

        :param find: returns a model that can take a prompt of so many tokens; 0 is of any length.
        :param take: gives the request to a model that was found by a name. Both raise LmxError
            where that cannot be.
        :returns: what ``take`` returned; None if nobody can.
        """
        taken = await self._first(self.chain, partial(find, prompt_tokens=prompt_tokens), take)
        if taken is None:
            larger = sorted(self._too_small, key=context_length, reverse=True)
            taken = await self._first(larger, partial(find, prompt_tokens=0), take)
        return taken

    async def _first(
        self,
        names: Iterable[str],
        find: Callable[[str], Awaitable[ModelCard]],
        take: Callable[[ModelCard, str], T],
    ) -> T | None:
        for name in names:
            try:
                card = await find(name)
                taken = take(card, name)
            except LmxError as error:
                self.refusals[name] = error
            else:
                self.refusals.pop(name, None)
                self.model = card.id
                return taken
        return None

    @property
    def chain(self) -> tuple[str, ...]:
        """The models that are tried, best first."""
        return self.decision.models[:1] if self.decision.strict else self.decision.models

    @property
    def _too_small(self) -> list[str]:
        refusals = self.refusals.items()
        return [name for name, error in refusals if isinstance(error, ContextOverflowError)]

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Whom the router or the kernel passed over."""
        refused = (Skipped(name, _reason(error)) for name, error in self.refusals.items())
        return (*self.decision.skipped, *refused)

    def route(self) -> Route:
        """Return where the request went."""
        return Route(
            asked=self.asked,
            model=self.model,
            router=self.router,
            rule=self.decision.rule,
            reason=self.decision.reason,
            skipped=self.skipped,
            chain=self.chain,
            at=time.time(),
        )

    def error(self) -> LmxError:
        """Return the error for a request that nobody takes: of the kind that may pass, if any may.
        If only one model would do, it is that one's.
        """
        decision, refusals = self.decision, list(self.refusals.values())
        if decision.strict and refusals:
            return refusals[0]
        if decision.retry_after_s is not None:
            refusals.append(UnavailableError("", retry_after_s=decision.retry_after_s))
        refusals.append(ModelNotFoundError(""))
        error = next((one for one in refusals if one.retryable), refusals[0])
        why = "; ".join(f"{one.model}: {one.reason}" for one in self.skipped) or "it names none"
        text = f"no model of {decision.rule or 'the router'} takes this request ({why})"
        return type(error)(
            text,
            param="model",
            retry_after_s=error.retry_after_s,
            retryable=error.retryable,
            figures=error.figures,
        )


def _reason(error: LmxError) -> str:
    return "not installed" if isinstance(error, ModelNotFoundError) else error.message
