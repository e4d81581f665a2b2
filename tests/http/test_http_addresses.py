"""A server on several addresses: each of them is served, and checked, as the only one would be."""

from __future__ import annotations

import re
import socket
from contextlib import closing

import httpx2
import pytest

from lmx_kernel.config import ConfigError
from lmx_kernel.daemon.checks import check_server
from lmx_kernel.daemon.run_file import local_urls
from lmx_kernel.errors import ForbiddenError
from lmx_kernel.http.address import ListenAddress
from lmx_kernel.http.origin import Origins
from lmx_kernel.http.port import AddressNotReadyError, ListenError, PortInUseError
from lmx_kernel.http.server import HttpServer
from lmx_kernel.http.settings import ServerSettings
from lmx_kernel.kernel.boot import boot

BOTH = ("127.0.0.1:0", "[::1]:0")


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:1234", "127.0.0.1", 1234),
        ("[::1]:1", "::1", 1),
        ("[fd00::2%eth0]:65535", "fd00::2%eth0", 65535),
        ("chat.lan:80", "chat.lan", 80),
    ],
)
def test_addresses_are_read_as_they_are_written(text, host, port):
    address = ListenAddress.parse(text)
    assert (address.host, address.port, str(address)) == (host, port, text)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_each_address_is_served(serve, scheme):
    running = await serve(listen=BOTH)
    async with httpx2.AsyncClient(timeout=60, verify=False) as http:
        for address in running.server.addresses:
            answer = await http.get(f"{scheme}://{address}/toy/echo")
            assert answer.json() == {"ok": True}, address
    await running.server.drain(10)
    for address in running.server.addresses:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address.host, address.port))


async def test_the_connections_of_all_addresses_are_counted_together(serve):
    running = await serve(listen=("127.0.0.1:0", "127.0.0.1:0"), max_connections=1)
    kept = await running.connect()
    second = running.server.addresses[1]
    async with httpx2.AsyncClient(base_url=f"http://{second}", timeout=60) as http:
        assert (await http.get("/toy/echo")).status_code == 503
    kept.drop()


async def test_an_address_that_cannot_be_had_is_told_as_of_one_alone(serve):
    running = await serve()
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        free = f"127.0.0.1:{probe.getsockname()[1]}"
    taken = f"127.0.0.1:{running.server.port}"
    for second, kind in ((taken, PortInUseError), ("203.0.113.1:1", AddressNotReadyError)):
        with pytest.raises(kind):
            HttpServer(ServerSettings(listen=(free, second)), running.shell).bind()
        again = HttpServer(ServerSettings(listen=(free,)), running.shell)
        again.bind()  # the first was given back
        await again.stop()


async def test_an_address_that_another_covers_is_named(serve):
    running = await serve()
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = HttpServer(
        ServerSettings(listen=(f"0.0.0.0:{port}", f"localhost:{port}")), running.shell
    )
    with pytest.raises(ListenError, match=f"covers localhost:{port}") as caught:
        server.bind()
    assert not isinstance(caught.value, PortInUseError)  # no retry helps


# --- what the config says ------------------------------------------------------------------------


def booted(tmp_path, lines, **variables):
    file = tmp_path / "config.toml"
    file.write_text(f"[plugins]\ndiscover = false\n[server]\n{lines}\n")
    return boot(file, environ={"LMX_HOME": str(tmp_path), **variables})


NO_LISTS = ("'127.0.0.1:1'", "[1]", "['127.0.0.1']", "['']", "[':1']", "['a b:1']", "['a:-1']")
NO_ADDRESSES = ("['::1:1234']", "['[::g]:1']", "['[127.0.0.1]:1']", "['a:65536']")


@pytest.mark.parametrize("value", [*NO_LISTS, *NO_ADDRESSES, "['a:1', 'b:1', 'a:1']"])
def test_what_is_no_address_is_refused_with_its_place(tmp_path, value):
    with pytest.raises(ConfigError, match=r"config\.toml:4: server\.listen"):
        booted(tmp_path, f"listen = {value}")


@pytest.mark.parametrize("position", [0, 1])
@pytest.mark.parametrize("key", ["", "password"])
def test_one_address_that_others_reach_needs_a_good_key(tmp_path, position, key):
    addresses = ["127.0.0.1:1", "127.0.0.1:2"]
    addresses[position] = "0.0.0.0:3"
    found = booted(tmp_path, f"listen = {addresses}\napi_key = '{key}'")
    line, name = (5, "api_key") if key else (4, "listen")
    with pytest.raises(ConfigError, match=rf"config\.toml:{line}: server\.{name}: .*reach"):
        check_server(found)


def test_listen_counts_instead_of_host_and_port_and_says_so(tmp_path, capfd):
    found = booted(tmp_path, "listen = ['127.0.0.1:7', '[::1]:8']", LMX_SERVER_PORT="9")
    urls = ("http://127.0.0.1:7", "http://[::1]:8")
    assert local_urls(found.settings.get(ServerSettings)) == urls
    check_server(found)
    assert "host_and_port_ignored" in capfd.readouterr().err


def test_foreign_names_are_refused_unless_an_address_is_public():
    local = Origins(ServerSettings(listen=("127.0.0.1:1", "[::1]:2", "localhost:3")))
    public = Origins(ServerSettings(listen=("127.0.0.1:1", "10.0.0.5:1")))
    assert local.check({"host": "[::1]:2"}) == public.check({"host": "10.0.0.5:1"}) == []
    with pytest.raises(ForbiddenError, match=re.escape("server.allowed_hosts")):
        local.check({"host": "evil.example"})
