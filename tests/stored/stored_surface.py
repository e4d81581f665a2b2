"""A small API of stored answers, for daemons in tests: texts and events as JSON."""

from __future__ import annotations

import time

from attrs import asdict

from lmx_kernel.errors import LmxError
from lmx_kernel.hookspecs import hookimpl
from lmx_kernel.interfaces import StoredAnswer
from lmx_kernel.testing.harness import ask
from lmx_kernel.types import SamplingRequest

BATCH_S = 0.05


def shown(event):
    """Return an event as JSON, with the log-odds of each token over the next likely one."""
    fields = {"kind": type(event).__name__, **asdict(event)}
    if details := fields.pop("logprobs", ()):
        tops = [[one["logprob"] for one in detail["top"]] for detail in details]
        fields["margins"] = [best - second for best, second in tops]
    return fields


class Answers:
    def __init__(self, kernel):
        self._kernel = kernel

    async def on_post(self, req, resp, answer_id):
        """Start an answer: the query names the model, has the text and a limit, and says whether
        the answer is greedy.
        """
        is_greedy = req.get_param_as_bool("greedy")
        sampling = SamplingRequest(temperature=0 if is_greedy else None)
        answer = StoredAnswer(
            id=answer_id, owner="", surface="stored", body=b"", created_at=time.time()
        )
        request = ask(
            req.get_param("model"),
            req.get_param("text"),
            sampling=sampling,
            logprobs=2,
            max_tokens=req.get_param_as_int("max_tokens"),
        )
        await self._kernel.stored_answers.start(answer, request)
        resp.media = {}

    async def on_get(self, req, resp, answer_id):
        """Return the events from ``first`` on that are there, and how the answer is."""
        events, number, problem = [], 0, ""
        with await self._kernel.stored_answers.read(answer_id, "") as reading:
            try:
                while event := await reading.next(BATCH_S):
                    if number >= req.get_param_as_int("first"):
                        events.append({"number": number, **shown(event)})
                    number += 1
            except StopAsyncIteration:
                pass
            except LmxError as error:
                problem = error.message
            outcome = reading.outcome
        resp.media = {"events": events, "outcome": outcome, "problem": problem}


class Surface:
    name = "stored"
    prefix = "/stored"
    scope = ""

    def __init__(self, kernel):
        self._kernel = kernel

    def routes(self):
        yield "/stored/{answer_id}", Answers(self._kernel)

    def operations(self):
        return []

    def render_error(self, error):
        return {"error": error.message}

    def example(self, url, model):
        return ""


@hookimpl
def lmx_api_surfaces(kernel):
    return [Surface(kernel)]
