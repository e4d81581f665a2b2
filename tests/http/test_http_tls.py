"""TLS: handshakes are counted and bounded, certificates are renewed, and clients trust one only."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from contextlib import suppress
from pathlib import Path

import pytest
import structlog

from lmx_kernel.http.tls import ServerCertificate, TlsFileError, pinned_context

GET = b"GET /toy/echo HTTP/1.1\r\nHost: x\r\n\r\n"
CERTIFICATES = Path(__file__).parent / "certificates"
CERT, KEY = CERTIFICATES / "first.cert", CERTIFICATES / "first.key"
OTHER_CERT, OTHER_KEY = CERTIFICATES / "second.cert", CERTIFICATES / "second.key"


@pytest.fixture
def scheme():
    return "https"


@pytest.fixture
def files(tmp_path):
    """Return copies of a certificate and its key, which a test may replace."""
    return {
        "tls_cert": shutil.copy(CERT, tmp_path / "cert.pem"),
        "tls_key": shutil.copy(KEY, tmp_path / "key.pem"),
    }


async def begin(running, data=b""):
    """Open a connection that does not complete its handshake."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.server.port)
    writer.write(data)
    return reader, writer


async def closed(opened):
    """Wait until the server has closed a connection."""
    reader, writer = opened
    with suppress(ConnectionResetError):
        await reader.read()
    writer.transport.abort()


def subject(connection):
    return dict(part[0] for part in connection.getpeercert()["subject"])["commonName"]


async def test_requests_are_answered(serve):
    running = await serve()
    client = await running.connect(GET)
    assert (await client.answer()).body == b'{"ok":true}'
    tls = client.writer.get_extra_info("ssl_object")
    assert tls.version() in ("TLSv1.2", "TLSv1.3")


@pytest.mark.parametrize("data", [b"", b"\x16\x03\x01\x02\x00", b"\x16\x03\x01\x00\x05\x01"])
async def test_half_a_handshake_is_closed_in_time(serve, data):
    running = await serve(header_timeout_s=0.2)
    await closed(await begin(running, data))


async def test_dripping_does_not_extend_a_handshake(serve):
    running = await serve(header_timeout_s=0.3)
    reader, writer = await begin(running, b"\x16\x03\x01\x02\x00")

    async def drip():
        while True:
            writer.write(b"\x00")
            await asyncio.sleep(0.05)

    dripping = asyncio.ensure_future(drip())
    await closed((reader, writer))
    dripping.cancel()


async def test_half_handshakes_count_as_connections(serve, until):
    running = await serve(max_connections=3)
    connections = running.server._connections
    half = [await begin(running) for _ in range(3)]
    await until(lambda: connections.count == 3)
    client = await running.connect(GET)
    assert (await client.answer()).status == 503
    client.drop()
    for _, writer in half:
        writer.transport.abort()
    await until(lambda: connections.count == 0)
    assert (await (await running.connect(GET)).answer()).status == 200


async def test_beyond_the_limit_no_handshake_begins(serve, until, monkeypatch):
    monkeypatch.setattr("lmx_kernel.http.connection_limits.MAX_REFUSED", 0)
    running = await serve(max_connections=2)
    half = [await begin(running) for _ in range(2)]
    await until(lambda: running.server._connections.count == 2)
    await closed(await begin(running))
    for _, writer in half:
        writer.transport.abort()


async def test_a_client_that_speaks_plain_http_is_logged(serve, until):
    running = await serve()
    with structlog.testing.capture_logs() as lines:
        await closed(await begin(running, GET))
        await until(lambda: lines)
    assert [(line["event"], line["cause"]) for line in lines] == [("refused", "tls")]
    assert lines[0]["client"] == "127.0.0.1"
    assert "HTTP" in lines[0]["reason"]


async def test_a_stop_ends_half_handshakes(serve, until):
    running = await serve()
    half = await begin(running)
    await until(lambda: running.server._connections.count == 1)
    assert await running.server.drain(60)
    await closed(half)


async def test_the_listener_goes_on_after_a_failure(serve, until, monkeypatch):
    monkeypatch.setattr("lmx_kernel.http.tls_listener.ACCEPT_PAUSE_S", 0)
    running = await serve()
    (listener,) = running.server._listeners
    accepts = [OSError(24, "Too many open files")]
    real = listener._socket

    class Socket:
        def accept(self):
            if accepts:
                raise accepts.pop()
            return real.accept()

        def fileno(self):
            return real.fileno()

    listener._socket = Socket()
    with structlog.testing.capture_logs() as lines:
        client = await running.connect(GET)
        assert (await client.answer()).status == 200
    assert "accept_failed" in [line["event"] for line in lines]
    listener._socket = real


async def test_a_renewed_certificate_counts_from_the_next_connection_on(serve, files):
    running = await serve(**files)
    first = await running.connect(GET)
    await first.answer()
    shutil.copy(OTHER_CERT, files["tls_cert"])
    with structlog.testing.capture_logs() as lines:
        await (await running.connect(GET)).answer()  # between two files that do not fit together
        shutil.copy(OTHER_KEY, files["tls_key"])
        running.tls = pinned_context(OTHER_CERT)
        second = await running.connect(GET)
        await second.answer()
    told = [line["event"] for line in lines if line["event"].startswith("certificate")]
    assert told == ["certificate_not_renewed", "certificate_renewed"]
    shown = [subject(one.writer.get_extra_info("ssl_object")) for one in (first, second)]
    assert shown == ["first.test", "second.test"]
    first.send(GET)
    assert (await first.answer()).status == 200


async def test_only_the_pinned_certificate_is_trusted(serve, tmp_path):
    running = await serve()
    chain = tmp_path / "chain.pem"
    chain.write_text(OTHER_CERT.read_text() + CERT.read_text())
    for file in (OTHER_CERT, chain):
        running.tls = pinned_context(file)
        with pytest.raises(ssl.SSLCertVerificationError):
            await running.connect()


def problem(cert, key=KEY):
    with pytest.raises(TlsFileError) as caught:
        ServerCertificate(cert, key)
    return caught.value


def test_what_is_wrong_with_a_file_is_told(tmp_path):
    garbage = tmp_path / "garbage.pem"
    garbage.write_bytes(b"\xff\x00 no PEM")
    damaged = tmp_path / "damaged.pem"
    damaged.write_text(CERT.read_text().replace("M", "N", 3))
    cases = {
        "tls_cert": [
            (tmp_path / "missing", KEY, "No such file"),
            (tmp_path, KEY, "Is a directory"),
            (garbage, KEY, "no certificate"),
            (damaged, KEY, "no certificate"),
            (KEY, KEY, "no certificate"),
            (CERT, None, "no private key"),
        ],
        "tls_key": [
            (CERT, tmp_path / "missing", "No such file"),
            (CERT, garbage, "no private key"),
            (CERT, CERT, "no private key"),
            (CERT, OTHER_KEY, "not the key of"),
            (CERT, CERTIFICATES / "encrypted.key", "is encrypted"),
        ],
    }
    for name, wrong in cases.items():
        for cert, key, words in wrong:
            error = problem(cert, key)
            assert (error.key, words in str(error)) == (name, True), str(error)
            assert not error.may_come
    assert problem(tmp_path / "no" / "disk" / "cert.pem").may_come


def test_a_key_may_be_in_the_file_of_the_certificate(tmp_path):
    both = tmp_path / "both.pem"
    both.write_text(KEY.read_text() + CERT.read_text())
    assert ServerCertificate(both, None).expires_at() > 0
