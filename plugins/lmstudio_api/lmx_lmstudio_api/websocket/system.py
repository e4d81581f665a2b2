"""``/system``: the models on disk, and the server itself."""

from __future__ import annotations

import asyncio
from typing import Any

from attrs import frozen
from msgspec import Struct

from lmx_kernel import __version__
from lmx_kernel.interfaces import Kernel
from lmx_lmstudio_api.model_info import model_info
from lmx_lmstudio_api.websocket.channel import Channel
from lmx_lmstudio_api.websocket.models import Name
from lmx_lmstudio_api.websocket.namespace import ChannelKind, Namespace, Rpc

BUILD = 1


class VariantsBody(Struct, rename="camel", frozen=True):
    """The parameter of ``listDownloadedModelVariants``."""

    model_key: Name


@frozen
class System:
    """Tells of the server."""

    kernel: Kernel

    @property
    def namespace(self) -> Namespace:
        """What clients may ask for."""
        return Namespace(
            "/system",
            rpcs={
                "listDownloadedModels": Rpc(None, self.models),
                "listDownloadedModelVariants": Rpc(VariantsBody, self.variants),
                "version": Rpc(None, self.version),
                "getExperimentFlags": Rpc(None, self.flags),
                "notify": Rpc(None, self.ignore),
                "startHttpServer": Rpc(None, self.ignore),  # it runs, or nobody could ask
            },
            channels={"alive": ChannelKind(None, self.alive, is_endless=True)},
        )

    async def models(self, _: None) -> list[dict[str, Any]]:
        """Return the models that can be loaded."""
        return [model_info(card) for card in self.kernel.models() if card.problem is None]

    async def variants(self, _: VariantsBody) -> list[dict[str, Any]]:
        """Return none: each quantization is a model of its own."""
        return []

    async def version(self, _: None) -> dict[str, Any]:
        """Return the version of LMX."""
        return {"version": __version__, "build": BUILD}

    async def flags(self, _: None) -> list[str]:
        """Return none."""
        return []

    async def ignore(self, _: None) -> None:
        """Do nothing: there is nothing to do here."""

    async def alive(self, channel: Channel, _: None) -> None:
        """Send nothing; clients see by the socket whether the server lives."""
        ended = asyncio.Event()
        channel.on_cancel(ended.set)
        await ended.wait()
