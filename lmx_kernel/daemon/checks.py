"""What is checked of the config before the server listens, beyond the types of its values."""

from __future__ import annotations

import structlog

from lmx_kernel.access.door import UnsafeBindError, check_bind
from lmx_kernel.access.keys import KeyFile, Keyring
from lmx_kernel.config import ConfigError, ConfigMissingError
from lmx_kernel.http.settings import ServerSettings
from lmx_kernel.http.tls import ServerCertificate, TlsFileError
from lmx_kernel.kernel.boot import Booted

log = structlog.get_logger(__name__)

_DEFAULT = ServerSettings()


def check_server(booted: Booted) -> Keyring:
    """Check the section ``server``: who could use the server, and the files of TLS.

    :return: the keys that the server takes.
    :raises ConfigError: names the file, the line and the key.
    :raises ConfigMissingError: a file is missing together with its folder, so both may come.
    """
    server = booted.settings.get(ServerSettings)
    keys = Keyring(KeyFile(booted.settings.home), server.api_key)
    if server.listen and (server.host, server.port) != (_DEFAULT.host, _DEFAULT.port):
        log.warning("host_and_port_ignored", reason="server.listen names all addresses")
    for address in server.addresses:
        try:
            check_bind(address.host, keys, server.api_key)
        except UnsafeBindError as error:
            key = "listen" if error.key == "host" and server.listen else error.key
            raise booted.refuse(("server", key), str(error)) from error
    try:
        find_certificate(server)
    except TlsFileError as error:
        kind = ConfigMissingError if error.may_come else ConfigError
        raise booted.refuse(("server", error.key), str(error), kind) from error
    if server.tls_cert is None and not server.is_local:
        log.warning(
            "no_tls", reason="keys and prompts cross the network in clear text: see docs/proxy.md"
        )
    return keys


def find_certificate(server: ServerSettings) -> ServerCertificate | None:
    """Return the server's certificate, None where it speaks plain HTTP.

    :raises TlsFileError: it cannot be used.
    """
    if server.tls_cert is not None:
        return ServerCertificate(server.tls_cert, server.tls_key)
    if server.tls_key is not None:
        raise TlsFileError("tls_key", "a key without a certificate: set server.tls_cert as well")
    return None
