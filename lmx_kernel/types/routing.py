"""Which model a request went to, and why."""

from __future__ import annotations

from attrs import frozen


@frozen
class Skipped:
    """A model that was not chosen for a request, and why."""

    model: str
    reason: str


@frozen
class Decision:
    """A router's choice.

    :param models: names of models, best first: the first that can serve the request gets it.
    :param reason: why these, in a few words.
    :param rule: the name of the rule that decided, if the router has rules.
    :param strict: try the first model only, and answer with its error if it cannot serve.
    :param skipped: models that the router itself skipped.
    :param retry_after_s: when to retry if no model can serve the request and the reasons in
        ``skipped`` pass with time; None if they do not.
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
    :param model: the id of the model that got it; "" if none could serve it.
    :param router: the router that decided; "" if the model was requested by its name.
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
