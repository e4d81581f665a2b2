"""A client of the running daemon, for commands."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from attrs import frozen

from lmx_kernel.cli.light_config import light_settings
from lmx_kernel.config import Settings
from lmx_kernel.daemon.run_file import Address, find_daemon
from lmx_kernel.errors import InternalError, LmxError, UnavailableError, from_code
from lmx_kernel.http.tls import TlsFileError

TIMEOUT_S = 30.0


@frozen
class Client:
    """Asks one daemon; each call blocks, and raises what the daemon refused."""

    _address: Address

    @classmethod
    def find(cls, config: Path | None = None) -> Client:
        """Return a client of the daemon that commands talk to.

        :raises ConfigError: the config is wrong.
        """
        return cls.of(light_settings(config))

    @classmethod
    def of(cls, settings: Settings) -> Client:
        """Return a client of the daemon that commands talk to with this config."""
        return cls(find_daemon(settings))

    def get(self, path: str, **query: Any) -> Any:
        """Ask for something.

        :param query: parameters; those that are None are left out.
        :raises LmxError: the daemon's own refusal, or word that there is none.
        """
        given = {name: value for name, value in query.items() if value is not None}
        return self._call("GET", path, query=f"?{urlencode(given)}" if given else "")

    def post(self, path: str, body: Any = None) -> Any:
        """Ask for something to be done, and wait until it is.

        :param body: goes as JSON.
        :raises LmxError: as for :meth:`get`.
        """
        return self._call("POST", path, msgspec.json.encode(body or {}), timeout_s=None)

    def delete(self, path: str) -> Any:
        """Ask for something to be deleted, and wait until it is.

        :raises LmxError: as for :meth:`get`.
        """
        return self._call("DELETE", path, timeout_s=None)

    def _call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        query: str = "",
        timeout_s: float | None = TIMEOUT_S,
    ) -> Any:
        address = self._address
        headers = {"authorization": f"Bearer {address.token}"} if address.token else {}
        url = address.url + quote(path) + query
        request = urllib.request.Request(url, body, headers, method=method)  # noqa: S310
        try:
            with address.open(request, timeout_s) as response:
                return msgspec.json.decode(response.read())
        except urllib.error.HTTPError as error:
            with error:
                raise _refusal(error.code, error.read()) from None
        except (OSError, TlsFileError) as error:
            reason = getattr(error, "reason", error)
            raise UnavailableError(
                f"no daemon answers at {address.url} ({reason}); start one with `lmx serve`"
            ) from None


def _refusal(status: int, body: bytes) -> LmxError:
    try:
        error = msgspec.json.decode(body)["error"]
        return from_code(error["code"], error["message"])
    except (ValueError, TypeError, KeyError):
        return InternalError(f"the daemon answered {status}: {body[:200].decode(errors='replace')}")
