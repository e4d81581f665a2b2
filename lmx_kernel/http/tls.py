"""TLS: the certificate that the server shows, and clients that trust exactly that one."""

from __future__ import annotations

import re
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

from lmx_kernel.config.file_state import file_state

NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME of OpenSSL; the ssl module does not name it
HANDSHAKE_TURNS = 4  # more than any version of TLS takes
_CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


class TlsFileError(Exception):
    """The file of a certificate or of its key cannot be used.

    :ivar key: of the section ``server`` that names it.
    :ivar may_come: its folder is not there either; its disk may come later.
    """

    def __init__(self, key: str, message: str, *, may_come: bool = False) -> None:
        super().__init__(message)
        self.key = key
        self.may_come = may_come


class ServerCertificate:
    """The certificate of a server and its key. Both are read again when they change, so that one
    that is renewed counts from the next connection on.

    :param certificate: a PEM file; the server's own certificate first, then those that signed it.
    :param key: a PEM file; None if the key is in the file of the certificate.
    :raises TlsFileError: a file is missing, damaged or encrypted.
    """

    def __init__(self, certificate: Path, key: Path | None) -> None:
        self._files = (certificate, key)
        self._context = _server_context(certificate, key)
        self._state = self._look()

    def context(self) -> ssl.SSLContext:
        """Return what a handshake begins with. Changed files that cannot be used are logged, and
        what was read before still counts.
        """
        if (state := self._look()) != self._state:
            self._state = state
            try:
                self._context = _server_context(*self._files)
            except TlsFileError as error:
                _log().error("certificate_not_renewed", key=error.key, reason=str(error))
            else:
                _log().info("certificate_renewed", file=str(self._files[0]))
        return self._context

    def expires_at(self) -> float:
        """Return the time until which the certificate is valid, in seconds since the epoch.

        A handshake in memory finds it: the ssl module tells it of a peer only.
        """
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = pinned_context(self._files[0]).wrap_bio(to_client, to_server)
        server = self._context.wrap_bio(to_server, to_client, server_side=True)
        for _ in range(HANDSHAKE_TURNS):
            for side in (client, server):
                with suppress(ssl.SSLWantReadError):
                    side.do_handshake()
        shown = client.getpeercert() or {}
        return float(ssl.cert_time_to_seconds(str(shown["notAfter"])))

    def _look(self) -> object:
        return [file_state(file) for file in self._files if file is not None]


def pinned_context(certificate: Path) -> ssl.SSLContext:
    """Return a context for clients that trusts the first certificate of a file and no other,
    whatever its names and its age, and whoever signed it.

    :raises TlsFileError: the file cannot be read, or has no certificate.
    """
    found = _CERTIFICATE.search(_read("tls_cert", certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN | NO_CHECK_TIME
    try:
        context.load_verify_locations(cadata=found[0] if found else "")
    except (ssl.SSLError, ValueError) as error:
        raise TlsFileError("tls_cert", f"{certificate} has no certificate in PEM format") from error
    return context


def _server_context(certificate: Path, key: Path | None) -> ssl.SSLContext:
    pinned_context(certificate)  # tells a wrong certificate from a wrong key
    name, file = ("tls_cert", certificate) if key is None else ("tls_key", key)
    _read(name, file)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])

    def refuse_password() -> str:
        raise TlsFileError(
            name, f"{file} is encrypted: `openssl pkey -in {file} -out NEW_FILE` decrypts it"
        )

    try:
        context.load_cert_chain(certificate, key, refuse_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            why = f"{file} is not the key of the certificate in {certificate}"
        else:
            why = f"{file} has no private key that can be used ({error.reason or error.args[-1]})"
        raise TlsFileError(name, why) from error
    return context


def _read(key: str, file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError as error:
        may_come = isinstance(error, FileNotFoundError) and not file.parent.exists()
        why = f"{file} cannot be read: {error.strerror}"
        raise TlsFileError(key, why, may_come=may_come) from error


def _log() -> Any:
    import structlog  # noqa: PLC0415 - commands, which write no log, start faster without it

    return structlog.get_logger("lmx.http")
