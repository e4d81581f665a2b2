"""The door: keys, scopes, and a plugin's objection."""

from __future__ import annotations

import re

import falcon.inspect
import httpx2
import pytest

from lmx_kernel.access import guesses
from lmx_kernel.access.door import Door, UnsafeBindError, WrongKeyError, check_bind
from lmx_kernel.access.guesses import WrongKeys
from lmx_kernel.access.keys import KeyFile, Keyring
from lmx_kernel.access.loopback import is_loopback
from lmx_kernel.errors import ForbiddenError, UnauthorizedError
from lmx_kernel.http.app import HeadRouter, build_app
from lmx_kernel.http.error_rendering import ErrorRenderer
from lmx_kernel.http.server import HttpServer
from lmx_kernel.http.settings import ServerSettings
from lmx_kernel.http.shell import OPEN_PATHS, Shell
from lmx_kernel.http.surface_table import SurfaceTable
from lmx_kernel.interfaces import HttpRequest

falcon.inspect.register_router(HeadRouter)(falcon.inspect.inspect_compiled_router)
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")


class Resource:
    """Answers every method with the name of the key."""

    async def on_get(self, req, resp, **_params):
        resp.media = {"key": req.scope["state"]["key"]}

    on_post = on_put = on_patch = on_delete = on_get


class Surface:
    def __init__(self, name, prefix, scope):
        self.name, self.prefix, self.scope = name, prefix, scope

    def routes(self):
        yield self.prefix, Resource()
        yield f"{self.prefix}/things", Resource()
        yield f"{self.prefix}/things/{{id}}", Resource()

    def render_error(self, error):
        return {self.name: error.code}


SURFACES = (
    Surface("chat", "/api", "inference"),
    Surface("admin", "/api/admin", "admin"),
    Surface("pages", "/pages", ""),
)


@pytest.fixture
def keys(tmp_path):
    return KeyFile(tmp_path)


@pytest.fixture
async def http(keys, health):
    """A client of a server with three surfaces; its ``app`` is the falcon app."""
    settings, surfaces = ServerSettings(port=0), SurfaceTable(SURFACES)
    app = build_app(SURFACES, health)
    door = Door(settings.is_local, Keyring(keys), surfaces.answering, lambda _request: None)
    server = HttpServer(settings, Shell(app, settings, ErrorRenderer(surfaces), door.admit))
    await server.start()
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as client:
        client.app = app
        yield client
    await server.stop()


def bearer(token):
    return {"authorization": f"Bearer {token}"}


def paths(app):
    """Return a path of every route that there is, but for the open ones."""
    found = [re.sub(r"{.*?}", "x", route.path) for route in falcon.inspect.inspect_routes(app)]
    assert set(found) >= OPEN_PATHS
    return [*sorted(set(found) - OPEN_PATHS), "/nowhere", "/api/nowhere", "/api/admin/nowhere"]


async def test_no_route_is_open_without_a_key(http, keys, monkeypatch):
    """Fault 18: all of them, with every method, whatever else is shown."""
    monkeypatch.setattr(guesses, "LONGEST_PAUSE_S", 0)
    keys.add("bot", ("inference", "admin"))
    asked = paths(http.app)
    assert len(asked) >= 13
    for path in asked:
        for method in METHODS:
            for headers in ({}, bearer("lmx-wrong"), {"x-api-key": "wrong"}):
                answer = await http.request(method, path, headers=headers)
                assert answer.status_code == 401, (method, path, headers)


async def test_no_route_is_open_to_a_key_of_another_scope(http, keys):
    owned = {"/api": "inference", "/api/admin": "admin", "/health/status": "admin"}
    tokens = {scope: keys.add(scope, (scope,)) for scope in set(owned.values())}
    refused = set()
    for path in paths(http.app):
        prefix = max((one for one in owned if path.startswith(one)), key=len, default="")
        for scope, token in tokens.items():
            answers = {
                (await http.request(method, path, headers=bearer(token))).status_code
                for method in METHODS
            }
            if prefix and scope != owned[prefix]:
                assert answers == {403}, (path, scope)
                refused.add(path)
            else:
                assert not answers & {401, 403}, (path, scope)
    assert len(refused) == 9


async def test_a_refusal_has_the_shape_of_its_surface(http, keys):
    token = keys.add("bot", ("inference",))
    assert (await http.get("/api/things")).json() == {"chat": "unauthorized"}
    answer = await http.get("/api/admin/things", headers=bearer(token))
    assert answer.json() == {"admin": "forbidden"}


@pytest.mark.parametrize("scheme", ["Bearer {}", "bearer  {}", None])
async def test_handlers_are_told_the_name_of_the_key(http, keys, scheme):
    token = keys.add("bot", ("inference",))
    headers = {"authorization": scheme.format(token)} if scheme else {"x-api-key": token}
    assert (await http.get("/api", headers=headers)).json() == {"key": "bot"}


async def test_without_any_key_this_machine_may_do_everything(http):
    for headers in ({}, bearer("any")):
        answer = await http.delete("/api/admin/things", headers=headers)
        assert (answer.status_code, answer.json()) == (200, {"key": ""})


# --- the door alone ------------------------------------------------------------------------------


def make_door(tmp_path, api_key="", host="127.0.0.1", ask=lambda _request: None):
    keyring = Keyring(KeyFile(tmp_path), api_key)
    return Door(is_loopback(host), keyring, SurfaceTable(SURFACES).answering, ask), keyring


def request(path="/api", **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpRequest(method="GET", path=path, headers=named, client="")


@pytest.mark.parametrize(
    ("headers", "is_let_in"),
    [
        ({"authorization": "Bearer k\xe9y"}, True),
        ({"x_api_key": "k\xe9y"}, True),
        ({"authorization": "Bearer wrong"}, False),
        ({"authorization": "Bearer "}, False),
        ({"authorization": "Basic k\xe9y"}, False),
        ({}, False),
    ],
)
def test_the_key_of_the_config_has_every_scope(tmp_path, headers, is_let_in):
    door, _ = make_door(tmp_path, "k\xe9y")
    for path in ("/api", "/api/admin", "/nowhere"):
        if is_let_in:
            assert door.admit(request(path, **headers)).key == "config"
        else:
            with pytest.raises(UnauthorizedError):
                door.admit(request(path, **headers))


def test_the_local_token_opens_everything_but_is_not_a_key_that_somebody_set(tmp_path):
    door, keyring = make_door(tmp_path)
    assert door.admit(request("/api/admin")).key == ""
    KeyFile(tmp_path).add("bot", ("inference",))
    door, keyring = make_door(tmp_path)
    local = {"authorization": f"Bearer {keyring.local_token}"}
    assert door.admit(request("/api/admin", **local)).key == "local"
    with pytest.raises(UnauthorizedError):
        door.admit(request("/api/admin"))


def test_without_any_key_the_network_stays_out(tmp_path):
    door, _ = make_door(tmp_path, host="0.0.0.0")
    with pytest.raises(UnauthorizedError):
        door.admit(request())


def test_a_surface_that_names_no_scope_needs_admin(tmp_path):
    class Silent:
        name, prefix = "silent", "/silent"

    file = KeyFile(tmp_path)
    bot, boss = file.add("bot", ("inference",)), file.add("boss", ("admin",))
    door = Door(True, Keyring(file), SurfaceTable([Silent()]).answering, lambda _request: None)
    assert door.admit(request("/silent/x", x_api_key=boss)).key == "boss"
    with pytest.raises(ForbiddenError):
        door.admit(request("/silent/x", x_api_key=bot))


def test_a_plugin_hears_the_name_of_the_key_and_may_object(tmp_path):
    heard = []

    def ask(asked):
        heard.append(asked.key)
        return ForbiddenError("not today")

    door, _ = make_door(tmp_path, "secret", ask=ask)
    with pytest.raises(ForbiddenError, match="not today"):
        door.admit(request(x_api_key="secret"))
    assert heard == ["config"]


GOOD = "J7dk2-qqP0-sl9x-Mv4"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", ""])
def test_the_network_is_let_in_only_with_a_key(tmp_path, host):
    with pytest.raises(UnsafeBindError, match="lmx key add"):
        check_bind(host, Keyring(KeyFile(tmp_path)))
    check_bind(host, Keyring(KeyFile(tmp_path), GOOD), GOOD)
    KeyFile(tmp_path).add("bot", ("inference",))
    check_bind(host, Keyring(KeyFile(tmp_path)))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_this_machine_needs_none(tmp_path, host):
    check_bind(host, Keyring(KeyFile(tmp_path)))


@pytest.mark.parametrize("api_key", ["z9", "letmein", "123456789012345", "k" * 32, "abab" * 8])
def test_a_key_that_is_easily_guessed_does_not_open_the_network(tmp_path, api_key):
    KeyFile(tmp_path).add("bot", ("inference",))
    keys = Keyring(KeyFile(tmp_path), api_key)
    with pytest.raises(UnsafeBindError, match="lmx key add") as caught:
        check_bind("0.0.0.0", keys, api_key)
    assert caught.value.key == "api_key"
    assert api_key not in str(caught.value)
    check_bind("127.0.0.1", keys, api_key)


# --- guesses -------------------------------------------------------------------------------------


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


def test_answers_to_wrong_keys_wait_longer_and_longer():
    wrong = WrongKeys(Clock())
    pauses = [wrong.note("10.0.0.1") for _ in range(40)]
    assert pauses[: guesses.FREE] == [0] * guesses.FREE
    assert pauses[guesses.FREE :] == sorted(pauses[guesses.FREE :])
    assert 0 < pauses[guesses.FREE] < pauses[-1] == guesses.LONGEST_PAUSE_S
    assert wrong.note("10.0.0.2") == 0


def test_an_address_is_forgiven_after_a_while():
    clock = Clock()
    wrong = WrongKeys(clock)
    for _ in range(40):
        wrong.note("10.0.0.1")
    clock.now_s += guesses.FORGOTTEN_S - 1
    assert wrong.note("10.0.0.1") > 0
    clock.now_s += guesses.FORGOTTEN_S + 1
    assert wrong.note("10.0.0.1") == 0


def test_the_addresses_of_one_customer_count_as_one():
    wrong = WrongKeys(Clock())
    assert [wrong.note(f"2001:db8:0:1::{n:x}") for n in range(20)][-1] > 0
    assert wrong.note("2001:db8:0:2::1") == 0
    for _ in range(20):
        wrong.note("::ffff:10.0.0.1")
    assert wrong.note("10.0.0.1") > 0
    assert wrong.note("::ffff:10.0.0.2") == 0


def test_a_million_addresses_take_no_more_memory():
    wrong = WrongKeys(Clock())
    for _ in range(10):
        wrong.note("192.0.2.1")
    for n in range(3 * guesses.MAX_ADDRESSES):
        wrong.note(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}")
        if n % 1000 == 0:
            assert wrong.note("192.0.2.1") > 0  # it is heard of, so others are forgotten
    assert len(wrong) == guesses.MAX_ADDRESSES


def test_a_right_key_is_never_held_back(tmp_path):
    door, _ = make_door(tmp_path, "right")
    for _ in range(40):
        with pytest.raises(WrongKeyError) as caught:
            door.admit(request(x_api_key="wrong"))
        assert door.admit(request(x_api_key="right")).key == "config"
    assert caught.value.pause_s == guesses.LONGEST_PAUSE_S


def test_a_browser_without_a_key_makes_no_guess(tmp_path):
    door, _ = make_door(tmp_path, "right")
    for _ in range(40):
        with pytest.raises(UnauthorizedError) as caught:
            door.admit(request())
        assert not isinstance(caught.value, WrongKeyError)
