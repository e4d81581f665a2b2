"""Models, requests and circumstances as a test writes them, and a router of some TOML."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from lmx_router_rules.router import RulesRouter
from lmx_router_rules.settings import RulesSettings

from lmx_kernel.config import Document, Settings, read_config, structure
from lmx_kernel.interfaces import HttpRequest, ModelState, RoutingContext, SettingsSection
from lmx_kernel.types import (
    ChatPrompt,
    Decision,
    GenerationRequest,
    Message,
    ModelCard,
    TextPart,
)

HERE = Path(__file__).parent
SECTIONS = [SettingsSection("router_rules", RulesSettings)]
NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)  # a Tuesday


def card(name: str, size: int = 1, *capabilities: str, problem: str | None = None) -> ModelCard:
    return ModelCard(
        id=name,
        backend="stub",
        path=Path(name),
        format="stub",
        architecture="stub",
        size_bytes=size,
        context_length=4096,
        capabilities=frozenset(capabilities),
        problem=problem,
    )


def ask(text: str = "hello", model: str = "auto", **fields: Any) -> GenerationRequest:
    prompt = ChatPrompt((Message("user", (TextPart(text),)),))
    return GenerationRequest(**{"model": model, "prompt": prompt, **fields})


def read(folder: Path, text: str) -> Document:
    path = folder / "config.toml"
    path.write_text(text)
    return read_config(path, {"LMX_HOME": str(folder)})


@define
class Desk:
    """A router, the models it knows, and what they do."""

    router: RulesRouter
    settings: Settings
    models: list[ModelCard]
    states: dict[str, ModelState] = field(factory=dict)

    def decide(
        self,
        request: GenerationRequest,
        *,
        now: datetime = NOON,
        key: str = "",
        client: str = "127.0.0.1",
        headers: dict[str, str] | None = None,
        pressure: str = "ease",
    ) -> Decision | None:
        caller = HttpRequest(method="POST", path="/", headers=headers or {}, client=client, key=key)
        context = RoutingContext(
            now=now, state=self._state, caller=caller, memory_pressure=pressure
        )
        return self.router.route(request, self.models, context)

    def models_for(self, request: GenerationRequest, **around: Any) -> tuple[str, ...] | None:
        decision = self.decide(request, **around)
        return decision and decision.models

    def does(self, model: str, **fields: Any) -> None:
        """Say what a model does."""
        self.states[model] = ModelState(**{"context_length": 4096, **fields})

    def _state(self, card: ModelCard) -> ModelState:
        return self.states.get(card.id) or ModelState(context_length=4096)


@pytest.fixture
def desk(tmp_path: Path) -> Callable[..., Desk]:
    """Return a function that makes a desk of a config and of models."""

    def make(text: str, *models: ModelCard | str) -> Desk:
        settings = structure(read(tmp_path, text), SECTIONS)
        cards = [card(one) if isinstance(one, str) else one for one in models]
        return Desk(RulesRouter(settings), settings, cards)

    return make


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Return the function that loads labelled prompts."""
    monkeypatch.syspath_prepend(str(HERE))
    from labelled import load

    return load


@pytest.fixture(name="ask")
def ask_fixture() -> Callable[..., GenerationRequest]:
    """Return a function that makes a request of one message."""
    return ask


@pytest.fixture(name="card")
def card_fixture() -> Callable[..., ModelCard]:
    """Return a function that makes a model's card."""
    return card


@pytest.fixture
def system() -> Callable[[str], GenerationRequest]:
    """Return a function that makes a request with a system text."""

    def make(text: str) -> GenerationRequest:
        turns = (Message("system", (TextPart(text),)), Message("user", (TextPart("hello"),)))
        return ask(prompt=ChatPrompt(turns))

    return make


@pytest.fixture
def conversation() -> Callable[..., GenerationRequest]:
    """Return a function that makes a request of turns by user and assistant."""

    def make(*texts: str) -> GenerationRequest:
        roles = ("user", "assistant") * len(texts)
        turns = (Message(role, (TextPart(text),)) for role, text in zip(roles, texts, strict=False))
        return ask(prompt=ChatPrompt(tuple(turns)))

    return make
