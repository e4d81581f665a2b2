"""Which model a request goes to: the routers in the config's order, then the name it asked for."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from lmx_kernel.interfaces import Router


@frozen(kw_only=True)
class RoutingSettings:
    """Section ``[routing]``.

    :ivar order: names of routers, first asked first; routers that are not named are not asked.
    """

    order: tuple[str, ...] = ()


def arrange(routers: Sequence[Router], settings: RoutingSettings) -> list[Router]:
    """Return the routers that the config names, in its order."""
    by_name = {router.name: router for router in routers}
    return [by_name[name] for name in settings.order if name in by_name]
