"""The line that the log has of each request."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import structlog
from attrs import define, field

from lmx_kernel.http.response import ResponseProgress
from lmx_kernel.interfaces import Answer, HttpRequest
from lmx_kernel.observe.redact import one_line
from lmx_kernel.types import Usage

CLIENT_LEFT = 499  # only in the log: no client is left to read a status

_LOGGED_CHARS = 256
_log = structlog.get_logger("lmx.http")


@define
class AccessLine:
    """One request in the log.

    :ivar request_id: its id.
    :ivar cause: the code of the error that was answered, or why the answer was cut.
    :ivar call: what the client of a socket asked for; None for an HTTP request.
    """

    request_id: str
    cause: str | None = None
    call: str | None = None
    _begun_s: float = field(factory=time.perf_counter)

    def write(
        self, request: HttpRequest, response: ResponseProgress, answers: Sequence[Answer]
    ) -> None:
        """Write the line: no body, no query, no header, no prompt and no answer.

        :param answers: the answers of models that the request started.
        """
        _log.info(
            "request",
            request_id=self.request_id,
            method=request.method,
            path=printable(request.path),
            status=response.status or CLIENT_LEFT,
            ms=_ms(time.perf_counter() - self._begun_s),
            bytes=response.body_bytes,
            cause=self.cause or (None if response.is_complete else "client_left"),
            key=request.key,
            **({"call": one_line(self.call, _LOGGED_CHARS)} if self.call else {}),
            **_summary(answers),
        )


def printable(path: str) -> str:
    """Return ``path`` fit for one line of a log."""
    return one_line(path, _LOGGED_CHARS)


def _summary(answers: Sequence[Answer]) -> dict[str, Any]:
    """Return what the answers to one request cost together, and how the first that failed did."""
    if not answers:
        return {}
    usage = Usage.joined([answer.usage() for answer in answers])
    outcomes = [answer.outcome or "cancelled" for answer in answers]  # nobody reads on
    return {
        "model": answers[0].model,
        "outcome": next((outcome for outcome in outcomes if outcome != "ok"), "ok"),
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "completion_tokens": usage.completion_tokens,
        "queue_ms": _ms(usage.queue_s),
        "first_token_ms": None if usage.first_token_s is None else _ms(usage.first_token_s),
        "total_ms": _ms(usage.total_s),
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)
