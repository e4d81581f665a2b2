from lmx_kept import Kept

from lmx_kernel.testing.conformance.router import GOOD, RouterConformance, make_context
from lmx_kernel.testing.harness import ask


class TestKept(RouterConformance):
    module = "lmx_kept"


def test_short_requests_go_to_the_smallest():
    decision = Kept().route(ask("auto", "hi"), GOOD, make_context())
    assert decision.models[0] == min(GOOD, key=lambda card: card.size_bytes).id
    decision = Kept().route(ask("auto", "hi " * 500), GOOD, make_context())
    assert decision.models[0] == max(GOOD, key=lambda card: card.context_length).id
