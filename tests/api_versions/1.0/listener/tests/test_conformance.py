import json

from lmx_kernel.api import RequestFinished
from lmx_kernel.testing.conformance.listener import USAGE, ListenerConformance, make_event


class TestKept(ListenerConformance):
    module = "lmx_kept"

    def seen(self, home):
        return [line["event"] for line in self.lines(home)]

    def lines(self, home):
        lines = (home / "kept.jsonl").read_text().split("\n")
        return [json.loads(line) for line in lines[:-1]]

    def test_a_line_has_what_the_event_has(self, tell, home):
        event = make_event(RequestFinished)
        tell(event)
        [line] = self.lines(home)
        assert (line["model"], line["outcome"]) == (event.model, event.outcome)
        assert line["usage"]["completion_tokens"] == USAGE.completion_tokens
