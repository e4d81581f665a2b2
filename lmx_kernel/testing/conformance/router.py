"""What LMX expects of a router."""

from __future__ import annotations

import inspect
import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest

from lmx_kernel.config import Settings
from lmx_kernel.interfaces import HttpRequest, ModelState, Router, RoutingContext
from lmx_kernel.plugins.manager import Plugins
from lmx_kernel.testing.conformance.plugin import PluginConformance, check_active, check_name
from lmx_kernel.types import (
    ChatPrompt,
    Constraint,
    Decision,
    EmbeddingPrompt,
    GenerationRequest,
    Message,
    ModelCard,
    Prompt,
    TextPart,
    TextPrompt,
    TokenPrompt,
    Tool,
)

REQUESTS = 1000
MOST_S = 0.001
NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
WORDS = ("write", "code", "hello", "translate", "¿qué?", "\x00", "🙂", "def f():", "1 + 1", "\n\n")
CALLER = HttpRequest(method="POST", path="/", headers={}, client="127.0.0.1", key="home")


def make_card(
    name: str, size_bytes: int = 1, context_length: int = 4096, **more: object
) -> ModelCard:
    """Return the card of a model that nobody has."""
    fields: dict[str, object] = {"backend": "stub", "format": "stub", "architecture": "stub"}
    return ModelCard(
        id=name, path=Path(name), size_bytes=size_bytes, context_length=context_length,
        **fields | more,  # type: ignore[arg-type]
    )  # fmt: skip


GOOD = (
    make_card("small", 1_000),
    make_card("middle", 50_000, 8192, capabilities=frozenset({"tools"})),
    make_card("acme/Large-9B", 9_000_000, 32_768),
    make_card("embed", 500, 512, capabilities=frozenset({"embedding"})),
)
BROKEN = (make_card("broken", 1, problem="cut off"), make_card("huge", 1 << 50, problem="damaged"))


class RouterConformance(PluginConformance):
    """For a plugin with the hook ``lmx_routers``.

    :cvar auto: the name of a model for which the router decides.
    :cvar takes_names: whether it also decides for requests that name a model of this machine.
    :cvar skips_problems: whether it leaves out models that have a problem where others are usable.
    """

    auto: ClassVar[str] = "auto"
    takes_names: ClassVar[bool] = False
    skips_problems: ClassVar[bool] = True

    @pytest.fixture
    def router(self, plugins: Plugins, settings: Settings) -> Router:
        """The router that is tried: the first of the plugin."""
        routers = self.own(plugins, "lmx_routers", plugins.routers(settings))
        check_active(plugins, self.module)
        assert routers, "lmx_routers returns nothing"
        return routers[0]

    def test_it_has_a_name_and_a_plain_function(self, router: Router) -> None:
        check_name(router.name)
        assert not inspect.iscoroutinefunction(router.route), "route is called, not awaited"

    def test_it_decides_for_the_name_that_stands_for_it(self, router: Router) -> None:
        decisions = [router.route(one, GOOD, make_context()) for one in requests(self.auto)]
        assert any(decisions), f"it never decides for {self.auto}"

    def test_decisions_name_models_that_are_there(self, router: Router) -> None:
        for models in (GOOD, (*BROKEN, *GOOD), (*GOOD, *BROKEN), BROKEN, ()):
            for request in itertools.islice(requests(self.auto), 60):
                self._check(router.route(request, models, make_context()), models)

    def _check(self, decision: Decision | None, models: Sequence[ModelCard]) -> None:
        if decision is None:
            return
        assert isinstance(decision, Decision), f"route returned a {type(decision).__name__}"
        assert isinstance(decision.models, tuple), "Decision.models is a tuple of names"
        assert decision.models or decision.skipped, "a decision for no model at all is None"
        known = {card.id for card in models}
        assert known.issuperset(decision.models), f"{decision.models} are not all known"
        assert len(set(decision.models)) == len(decision.models), decision.models
        assert isinstance(decision.reason, str)
        assert decision.reason.strip(), "the reason is shown to clients and owners"
        usable = {card.id for card in models if not card.problem}
        if self.skips_problems and usable and decision.models:
            assert usable.issuperset(decision.models), f"{decision.models} cannot all be loaded"

    def test_it_leaves_what_names_a_model(self, router: Router) -> None:
        if self.takes_names:
            pytest.skip("it decides for names of models too")
        for card in (*GOOD, *BROKEN):
            for request in itertools.islice(requests(card.id), 10):
                decision = router.route(request, (*GOOD, *BROKEN), make_context())
                assert decision is None or decision.models[:1] == (card.id,)

    def test_it_is_pure(self, router: Router) -> None:
        """The same again, whatever came between, and no argument is changed."""
        cases = [(one, list(GOOD)) for one in requests(self.auto)]
        first = [router.route(one, models, make_context()) for one, models in cases]
        assert all(models == list(GOOD) for _, models in cases), "route changes the list of models"
        order = list(range(len(cases)))
        random.Random(1).shuffle(order)
        for place in order:
            request, models = cases[place]
            assert router.route(request, models, make_context()) == first[place]

    def test_it_looks_at_the_models_of_this_call(self, router: Router) -> None:
        for models in (GOOD, GOOD[:1], GOOD[1:2], (), GOOD):
            for request in itertools.islice(requests(self.auto), 20):
                self._check(router.route(request, models, make_context()), models)

    def test_it_needs_no_caller(self, router: Router) -> None:
        for request in itertools.islice(requests(self.auto), 60):
            router.route(request, GOOD, make_context(caller=None))

    def test_it_bears_any_circumstances(self, router: Router) -> None:
        asked: list[str] = []
        for number, request in enumerate(itertools.islice(requests(self.auto), 60)):
            state = partial(_state, asked, number)
            pressure = ("ease", "soft", "hard")[number % 3]
            now = NOON + timedelta(hours=number)
            context = make_context(state=state, memory_pressure=pressure, now=now)
            self._check(router.route(request, GOOD, context), GOOD)
        assert set(asked) <= {card.id for card in GOOD}

    def test_it_is_fast(self, router: Router) -> None:
        cases, context = list(requests(self.auto)), make_context()
        start_s = time.thread_time()
        for request in cases:
            router.route(request, GOOD, context)
        each_s = (time.thread_time() - start_s) / len(cases)
        assert each_s < MOST_S, f"route takes {each_s * 1000:.1f} ms, on the event loop"


def make_context(
    caller: HttpRequest | None = CALLER,
    state: Callable[[ModelCard], ModelState] | None = None,
    now: datetime = NOON,
    memory_pressure: str = "ease",
) -> RoutingContext:
    """Return what a router knows beside the request."""
    found = state or (lambda card: ModelState(context_length=card.context_length))
    return RoutingContext(now=now, state=found, caller=caller, memory_pressure=memory_pressure)


def requests(model: str) -> Iterator[GenerationRequest]:
    """Yield :data:`REQUESTS` requests of every kind, always the same ones."""
    dice = random.Random(7)
    yield GenerationRequest(model=model, prompt=ChatPrompt(()))
    for number in range(REQUESTS - 1):
        constraint = Constraint("json_object") if number % 7 == 0 else None
        yield GenerationRequest(
            model=model,
            prompt=_prompt(dice, number),
            max_tokens=dice.choice((None, 1, 100_000)),
            constraint=constraint,
        )


def _prompt(dice: random.Random, number: int) -> Prompt:
    text = " ".join(dice.choice(WORDS) for _ in range(dice.choice((0, 1, 10, 300))))
    if number % 9 == 1:
        return TextPrompt(text)
    if number % 9 == 2:
        return TokenPrompt(tuple(range(dice.randrange(50))))
    if number % 9 == 3:
        return EmbeddingPrompt((TextPrompt(text), TokenPrompt((1, 2))))
    turns = dice.choice((1, 2, 3))
    messages = [Message("user", (TextPart(text),)) for _ in range(turns)]
    if number % 4 == 0:
        messages.insert(0, Message("system", (TextPart("Be brief."),)))
    if number % 5 == 0:
        messages.append(Message("assistant", ()))
    tools = (Tool(name="f", parameters={"type": "object"}),) if number % 6 == 0 else ()
    return ChatPrompt(tuple(messages), tools)


def _state(asked: list[str], number: int, card: ModelCard) -> ModelState:
    asked.append(card.id)
    return ModelState(
        context_length=card.context_length,
        is_loaded=number % 2 == 0,
        running=number,
        waiting=number % 5,
        tokens_per_s=None if number % 3 else 20.0,
        wait_s=float(number),
        problem="cools down" if number % 7 == 0 else "",
    )
