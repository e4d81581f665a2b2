"""The HTTP request that is being served, for code that is called on its behalf."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial

from attrs import define, evolve, field

from lmx_kernel.access.keys import LOCAL
from lmx_kernel.interfaces import Answer, HttpRequest
from lmx_kernel.types import ANONYMOUS, GenerationRequest, Route


@define
class RequestContext:
    """What is known of one HTTP request while it is served.

    :ivar request: what authorisers and routers see of it.
    :ivar answers: the answers it started, and how it came to their models. None when the request's
        line of log is written: what it started may outlive it.
    :ivar number: no other HTTP request of this process has it.
    """

    request: HttpRequest
    answers: list[tuple[Answer, Route]] | None = field(factory=list)
    number: int = field(factory=partial(next, itertools.count(1)))


current: ContextVar[RequestContext | None] = ContextVar("current_request", default=None)


def caller() -> HttpRequest | None:
    """Return the HTTP request that is being served; None for work that the kernel does itself."""
    context = current.get()
    return context.request if context else None


def with_caller(request: GenerationRequest, *, share_prefixes: bool) -> GenerationRequest:
    """Return ``request`` with the caller, its terms and the cache space that the HTTP request being
    served gives it; with its own where there is none, for work that the kernel or a plugin does
    itself. The priority is at most that of the terms.

    The local key counts as none: without further keys its owner is one of those who need no key.

    :param share_prefixes: all callers have one cache space.
    """
    context = current.get()
    if context is None:
        return evolve(request, priority=request.terms.grant(request.priority))
    key = "" if context.request.key == LOCAL else context.request.key
    terms = context.request.terms
    return evolve(
        request,
        caller=key or f"{ANONYMOUS}{context.number}",  # no name of a key begins like that
        cache_space="" if share_prefixes else key,
        terms=terms,
        priority=terms.grant(request.priority),
    )


@contextmanager
def noting_no_answers() -> Iterator[None]:
    """Leave the answers that are started meanwhile out of what is noted of the HTTP request."""
    context = current.get()
    token = current.set(evolve(context, answers=None) if context else None)
    try:
        yield
    finally:
        current.reset(token)


def note_answer(answer: Answer, route: Route) -> None:
    """Note an answer for the headers and the log line of the HTTP request that is being served."""
    context = current.get()
    if context is not None and context.answers is not None:
        context.answers.append((answer, route))
