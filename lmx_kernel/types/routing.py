"""Which model a request went to, and why."""

from __future__ import annotations

from attrs import frozen


@frozen
class Skipped:
    """A model that a request did not go to, and why."""

    model: str
    reason: str


@frozen
class Decision:
    """A router's choice.

    :param models: names of models, best first: the first that can take the request gets it.
    :param reason: why these, in a few words.
    :param rule: what the choice rests on, where the router has a name for it.
    :param strict: only the first will do: its own error is answered if it cannot take the request.
    :param skipped: models that the router itself passed over.
    :param retry_after_s: when to try again if nobody takes the request, where the reasons of
        ``skipped`` pass with time; None where they do not.
    """

    models: tuple[str, ...]
    reason: str
    rule: str = ""
    strict: bool = False
    skipped: tuple[Skipped, ...] = ()
    retry_after_s: int | None = None


@frozen(kw_only=True)
class Route:
    """Where a request went, and why.

    :param asked: the model's name as the client wrote it.
    :param model: the id of the model that got it; "" if none could take it.
    :param router: whose decision it was; "" where the request's own word counted.
    :param chain: the models that were to be tried, best first.
    :param at: when, in seconds since the epoch.
    """

    asked: str
    model: str
    router: str = ""
    rule: str = ""
    reason: str = ""
    skipped: tuple[Skipped, ...] = ()
    chain: tuple[str, ...] = ()
    at: float = 0.0
