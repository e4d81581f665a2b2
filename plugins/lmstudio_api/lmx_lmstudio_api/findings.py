"""What `lmx doctor` tells of an LM Studio on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import msgspec
from lmx_model_folders.lm_studio import homes, model_folders, read_object
from lmx_model_folders.settings import FolderSettings

from lmx_kernel.config import Settings
from lmx_kernel.http.port import greeting_at
from lmx_kernel.http.settings import ServerSettings
from lmx_kernel.interfaces import Finding
from lmx_kernel.runtime.settings import ModelSettings
from lmx_kernel.types import ModelCard
from lmx_lmstudio_api.lms.install import is_ours, other_file, own_file
from lmx_lmstudio_api.settings import GREETING_PATH

SUBJECT = "LM Studio"
SDK_PORTS = (41343, 52993, 16141, 39414, 22931)  # where SDKs look, in this order; never at 1234
ASK_S = 1.0
_LOCAL = ("127.0.0.1", "localhost", "::1")
# Files of LM Studio's home that LMX reads nothing of.
_NOT_READ = {
    "mcp.json": "MCP servers (LMX runs none; agents bring their own)",
    "config-presets/*.json": "presets (`profiles` of a [[model]] table are LMX's)",
    ".internal/user-concrete-model-default-config/**/*.json": "settings of single models "
    "([[model]] tables are LMX's)",
}


def examine(settings: Settings, models: Sequence[ModelCard]) -> Iterable[Finding]:
    """Yield what was found of an LM Studio, and what its clients may miss here."""
    server = settings.get(ServerSettings)
    for home in filter(Path.is_dir, homes()):
        yield Finding(True, SUBJECT, f"its files are in {home}")
        yield from _port(server, read_object(home / ".internal" / "http-server-config.json"))
        yield from _settings(settings, read_object(home / ".internal" / "http-server-config.json"))
        yield from _not_read(home)
    yield from _models(settings, models)
    if not {address.port for address in server.addresses} & set(SDK_PORTS):
        ports = ", ".join(map(str, SDK_PORTS))
        yield Finding(
            True,
            "LM Studio's SDKs",
            f"without an address they look for a server at the ports {ports} of this machine: "
            f'give them one, or add "127.0.0.1:{SDK_PORTS[0]}" to server.listen',
        )
    yield _lms()


def _models(settings: Settings, models: Sequence[ModelCard]) -> Iterator[Finding]:
    for folder in filter(Path.is_dir, model_folders()):
        if not _is_read(settings):
            yield Finding(True, SUBJECT, f"{folder} is not read: model_folders.lm_studio is off")
            continue
        usable = [one for one in models if not one.problem and one.path.is_relative_to(folder)]
        yield Finding(True, SUBJECT, f"models in {folder} that can be loaded: {len(usable)}")


def _is_read(settings: Settings) -> bool:
    try:
        return settings.get(FolderSettings).lm_studio
    except KeyError:  # the plugin that reads it is off
        return False


def _port(server: ServerSettings, theirs: dict[str, Any]) -> Iterator[Finding]:
    port = theirs.get("port")
    port = port if isinstance(port, int) and 0 < port < 2**16 else 1234
    if _runs_at(port):
        is_free = port not in [address.port for address in server.addresses]
        advice = "" if is_free else ": stop it, or LMX cannot have this port"
        yield Finding(is_free, SUBJECT, f"its server runs at port {port}{advice}")
    elif port not in [address.port for address in server.addresses]:
        yield Finding(True, SUBJECT, f"its port was {port}; LMX's is in server.port")


def _settings(settings: Settings, theirs: dict[str, Any]) -> Iterator[Finding]:
    """Yield where its server was set otherwise than LMX is."""
    server = settings.get(ServerSettings)
    interface = theirs.get("networkInterface")
    if isinstance(interface, str) and interface not in _LOCAL and server.is_local:
        text = "it was open to other machines: set server.host, which needs a key (`lmx key add`)"
        yield Finding(True, SUBJECT, text)
    if theirs.get("cors") is True and not server.allowed_origins:
        yield Finding(True, SUBJECT, "it let web pages in (CORS): name them in allowed_origins")
    if theirs.get("justInTimeModelLoading") is False and settings.get(ModelSettings).jit:
        yield Finding(True, SUBJECT, "its requests loaded no models (JIT off): set models.jit")


def _not_read(home: Path) -> Iterator[Finding]:
    for pattern, what in _NOT_READ.items():
        if next(home.glob(pattern), None) is not None:
            yield Finding(True, SUBJECT, f"not taken over: {what}")


def _lms() -> Finding:
    if (other := other_file()) is not None:
        return Finding(True, "lms", f"{other} is another program's; `lmx lms` is LMX's")
    if is_ours(own_file()):
        return Finding(True, "lms", f"{own_file()} is LMX's")
    return Finding(True, "lms", "there is none: `lmx lms install` makes one for scripts")


def _runs_at(port: int) -> bool:
    """Return whether an LM Studio answers there, and no LMX."""
    try:
        with closing(HTTPConnection("127.0.0.1", port, timeout=ASK_S)) as connection:
            connection.request("GET", GREETING_PATH)
            found = msgspec.json.decode(connection.getresponse().read(1024))
    except (OSError, HTTPException, ValueError):
        return False
    return found == {"lmstudio": True} and greeting_at("127.0.0.1", port) is None
