"""The config tells everything that is wrong with it, and where."""

from __future__ import annotations

import json
import time
from enum import Enum
from pathlib import Path
from typing import Literal

import attrs
import pytest
from attrs import field, validators
from hypothesis import given
from hypothesis import strategies as st

from lmx_kernel.config import ConfigError, Document, Problem, Settings, read_config, structure
from lmx_kernel.interfaces import SettingsSection


class Level(Enum):
    LOW = "low"
    HIGH = "high"


@attrs.frozen
class Rule:
    model: str
    weight: float = 1.0


@attrs.frozen
class Server:
    host: str = "127.0.0.1"
    port: int = field(default=1234, validator=[validators.ge(1), validators.le(65535)])
    timeout_s: float = 30.0
    tls: bool = False
    level: Level = Level.LOW
    mode: Literal["open", "closed"] = "open"
    limit: int | None = None
    data: Path = Path("data")


@attrs.frozen
class Routing:
    order: tuple[str, ...] = ()
    tags: frozenset[str] = frozenset()
    default: Rule = Rule("any")
    rules: tuple[Rule, ...] = ()
    aliases: dict[str, Rule] = field(factory=dict)


@attrs.frozen
class Window:
    """Has validators that look at their siblings."""

    low: int = field(default=0, validator=validators.ge(0))
    high: int = field(default=10)

    @high.validator
    def _above_low(self, _: object, value: int) -> None:
        if value <= self.low:
            raise ValueError("high must be above low")


SECTIONS = [
    SettingsSection("server", Server),
    SettingsSection("routing", Routing),
    SettingsSection("window", Window),
]


def read(folder: Path, text: str | bytes, environ: dict[str, str] | None = None) -> Document:
    path = folder / "config.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_config(path, environ or {})


def settings_of(folder: Path, text: str = "", environ: dict[str, str] | None = None) -> Settings:
    return structure(read(folder, text, environ), SECTIONS)


def problems_of(
    folder: Path, text: str | bytes = "", environ: dict[str, str] | None = None
) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        structure(read(folder, text, environ), SECTIONS)
    return caught.value.problems


BROKEN: list[tuple[str, int | None, str, str]] = [
    # types
    ("[server]\nport = 'abc'", 2, "server.port", "expected an integer, found 'abc'"),
    ("[server]\nport = '1'", 2, "server.port", "expected an integer, found '1'"),
    ("[server]\nport = 1.0", 2, "server.port", "expected an integer, found 1.0"),
    ("[server]\nport = true", 2, "server.port", "expected an integer, found true"),
    ("[server]\nport = [1]", 2, "server.port", "expected an integer, found a list"),
    ("[server]\nport = {a = 1}", 2, "server.port", "expected an integer, found a table"),
    ("[server.port]\na = 1", 1, "server.port", "expected an integer, found a table"),
    ("[server]\nport = 2020-01-01", 2, "server.port", "expected an integer, found 2020-01-01"),
    ("[server]\n\n# why\nhost = 1", 4, "server.host", "expected a string, found 1"),
    ("[server]\nhost = false", 2, "server.host", "expected a string, found false"),
    ("[server]\nhost = []", 2, "server.host", "expected a string, found a list"),
    ("[server]\ntls = 1", 2, "server.tls", "expected true or false, found 1"),
    ("[server]\ntls = 'true'", 2, "server.tls", "expected true or false, found 'true'"),
    ("[server]\ntimeout_s = '3'", 2, "server.timeout_s", "expected a number, found '3'"),
    ("[server]\ntimeout_s = true", 2, "server.timeout_s", "expected a number, found true"),
    ("[server]\ndata = 3", 2, "server.data", "expected a string, found 3"),
    ("[server]\nlimit = 'x'", 2, "server.limit", "expected an integer, found 'x'"),
    ("[server]\nlevel = 'mid'", 2, "server.level", "one of 'low', 'high', found 'mid'"),
    ("[server]\nlevel = ['low']", 2, "server.level", "one of 'low', 'high', found a list"),
    ("[server]\nmode = 'ajar'", 2, "server.mode", "one of 'open', 'closed', found 'ajar'"),
    ("[server]\nmode = true", 2, "server.mode", "one of 'open', 'closed', found true"),
    # validators
    ("[server]\nport = 0", 2, "server.port", "'port' must be >= 1: 0"),
    ("[server]\nport = 70000", 2, "server.port", "'port' must be <= 65535: 70000"),
    ("[window]\nlow = 20", 1, "window", "high must be above low"),
    # containers
    ("[routing]\norder = 'ab'", 2, "routing.order", "expected a list, found 'ab'"),
    ("[routing]\norder = {a = 1}", 2, "routing.order", "expected a list, found a table"),
    ("[routing]\norder = ['a', 2]", 2, "routing.order[1]", "expected a string, found 2"),
    ("[routing]\norder = [\n'a',\n2,\n]", 2, "routing.order[1]", "expected a string, found 2"),
    ("[routing]\ntags = 'ab'", 2, "routing.tags", "expected a list, found 'ab'"),
    ("[routing]\ntags = [['a']]", 2, "routing.tags[0]", "expected a string, found a list"),
    ("[routing]\naliases = []", 2, "routing.aliases", "expected a table, found a list"),
    ("[routing]\ndefault = 'x'", 2, "routing.default", "expected a table, found 'x'"),
    ("[routing.default]\nmodel = 1", 2, "routing.default.model", "expected a string, found 1"),
    ("[routing.default]\nweight = 1", 1, "routing.default.model", "is missing"),
    ("[routing]\ndefault.model = 1", 2, "routing.default.model", "expected a string"),
    ("routing.default.model = 1", 1, "routing.default.model", "expected a string"),
    ("[routing.aliases]\nfast = 1", 2, "routing.aliases.fast", "expected a table, found 1"),
    (
        "[routing.aliases.'a.b']\n\nmodel = 1",
        3,
        "routing.aliases.a.b.model",
        "expected a string, found 1",
    ),
    (
        "[[routing.rules]]\nmodel = 'a'\n[[routing.rules]]\nmodel = 1",
        4,
        "routing.rules[1].model",
        "expected a string, found 1",
    ),
    (
        "[[routing.rules]]\nmodel = 'a'\n\n[[routing.rules]]\nweight = 1",
        4,
        "routing.rules[1].model",
        "is missing",
    ),
    # unknown names
    ("[server]\nprot = 1", 2, "server.prot", "unknown key; did you mean 'port'?"),
    ("[server]\nxyzzy = 1", 2, "server.xyzzy", "unknown key"),
    ("[server]\nPort = 1", 2, "server.Port", "unknown key; did you mean 'port'?"),
    ("[server.sub]\na = 1", 1, "server.sub", "unknown key"),
    (
        "[routing.default]\nmodel = 'a'\nwieght = 2",
        3,
        "routing.default.wieght",
        "unknown key; did you mean 'weight'?",
    ),
    ("[serve]\nport = 1", 1, "serve", "unknown section; did you mean 'server'?"),
    ("[server]\n\n[xyzzy]", 3, "xyzzy", "unknown section"),
    ("port = 1234", 1, "port", "unknown section"),
    ("\nserver = 1", 2, "server", "expected a table, found 1"),
    ("[[server]]\nport = 1", 1, "server", "expected a table, found a list"),
    # lines that look like others
    ("[server]\nhost = '''\nport = 1\n'''\nport = ''", 5, "server.port", "expected an integer"),
    ("[server]\r\nhost = ''\r\nport = ''\r\n", 3, "server.port", "expected an integer"),
    ("[server]\n'port' = ''", 2, "server.port", "expected an integer"),
    ('[server]\n"p\\u006frt" = ""', 2, "server.port", "expected an integer"),
    ("[ server ] # port\n  port\t= ''", 2, "server.port", "expected an integer"),
    ("\ufeff[server]\nport = ''", 2, "server.port", "expected an integer"),
    # syntax
    ("[server", 1, "", "not valid TOML"),
    ("[server]\nport 1", 2, "", "not valid TOML"),
    ("[server]\nport =", 2, "", "not valid TOML"),
    ("[server]\nport = 1 2", 2, "", "not valid TOML"),
    ("[server]\nhost = localhost\n", 2, "", "not valid TOML: Invalid value"),
    ("[server]\nhost = 'a\nport = 1", 2, "", "not valid TOML"),
    ("[server]\nport = 1\nport = 2", 3, "", "not valid TOML: Cannot overwrite a value"),
    ("[server]\n[routing]\n[server]", 3, "", "not valid TOML: Cannot declare"),
    ("[server]\nport = 0123", 2, "", "not valid TOML"),
    ("[server]\n\n[routing]\norder = [\n'a',\n'b'", 4, "", "not valid TOML"),
    ("[server]\nhost = '''\nnever\nclosed", 2, "", "not valid TOML"),
    ("[server]\nhost = '\x00'", 2, "", "not valid TOML"),
    (f"[server]\nport = {'9' * 5000}", 2, "", "not valid TOML"),
    (f"[routing]\n\norder = {'[' * 100_000}", 3, "", "not valid TOML"),
]


@pytest.mark.parametrize(("text", "line", "key", "message"), BROKEN)
def test_problem_is_told_with_its_line_and_key(
    tmp_path: Path, text: str, line: int | None, key: str, message: str
) -> None:
    began = time.process_time()
    (problem,) = problems_of(tmp_path, text)
    assert (problem.line, problem.key) == (line, key)
    assert message in problem.message
    assert problem.source == str(tmp_path / "config.toml")
    assert time.process_time() - began < 1


def test_all_problems_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """\
        [routing]
        order = 3
        [server]
        port = "a"
        hots = "b"
        tls = 2
        level = "c"
        [[routing.rules]]
        [srever]
        """
    problems = problems_of(tmp_path, text, {"LMX_SERVER_TIMEOUT_S": "soon"})
    assert [(problem.line, problem.key) for problem in problems] == [
        (None, "server.timeout_s"),
        (2, "routing.order"),
        (4, "server.port"),
        (5, "server.hots"),
        (6, "server.tls"),
        (7, "server.level"),
        (8, "routing.rules[0].model"),
        (9, "srever"),
    ]


def test_validators_of_several_keys_are_told_together(tmp_path: Path) -> None:
    problems = problems_of(tmp_path, "[server]\nport = 0\n[window]\nlow = -1\n[routing]\norder = 1")
    assert [problem.key for problem in problems] == ["server.port", "window.low", "routing.order"]


def test_error_reads_as_one_line_a_problem(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        settings_of(tmp_path, "[server]\nport = 'abc'", {"LMX_SERVER_TLS": "on"})
    assert str(caught.value).splitlines() == [
        "LMX_SERVER_TLS: server.tls: expected true or false, found 'on'",
        f"{tmp_path}/config.toml:2: server.port: expected an integer, found 'abc'",
    ]


def test_long_values_are_cut_short(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, f"[server]\nport = '{'x' * 10_000}'")
    assert len(problem.message) < 100


def test_a_large_broken_file_is_told_within_a_second(tmp_path: Path) -> None:
    aliases = "".join(f"[routing.aliases.a{n}]\nmodel = {n}\n" for n in range(300))
    began = time.process_time()
    problems = problems_of(tmp_path, aliases)
    assert [problem.line for problem in problems] == list(range(2, 602, 2))
    assert time.process_time() - began < 1


# --- files that cannot be read -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"[server]\nhost = '\xff'", 2),
        (b"\x80", 1),
        ("[server]".encode("utf-16"), 1),
        (b"# fine\n\n# \xc3\n", 3),
    ],
)
def test_bad_utf8(tmp_path: Path, data: bytes, line: int) -> None:
    (problem,) = problems_of(tmp_path, data)
    assert (problem.line, problem.message) == (line, "not UTF-8")


def unreadable(folder: Path, kind: str) -> Path:
    path = folder / "config.toml"
    match kind:
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path)
        case "below a file":
            path.touch()
            return path / "config.toml"
        case "long name":
            return folder / ("x" * 300)
    return path


@pytest.mark.parametrize("kind", ["folder", "loop", "below a file", "long name", "missing"])
def test_unreadable_file(tmp_path: Path, kind: str) -> None:
    path = unreadable(tmp_path, kind)
    with pytest.raises(ConfigError) as caught:
        read_config(path, {})
    (problem,) = caught.value.problems
    assert (problem.source, problem.line, problem.key) == (str(path), None, "")
    assert problem.message.startswith("cannot be read: ")


def test_forbidden_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
        read_config(tmp_path / "config.toml", {})


def test_default_file_may_be_missing(tmp_path: Path) -> None:
    document = read_config(environ={"LMX_HOME": str(tmp_path)})
    settings = structure(document, SECTIONS)
    assert settings.home == tmp_path
    assert settings.get(Server) == Server()


def test_default_file_is_in_the_home_folder(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[server]\nport = 1")
    document = read_config(environ={"LMX_HOME": str(tmp_path)})
    assert structure(document, SECTIONS).get(Server).port == 1


@pytest.mark.parametrize("environ", [{}, {"LMX_HOME": ""}])
def test_home_folder_by_default(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]) -> None:
    monkeypatch.setenv("HOME", "/nowhere")
    assert read_config(environ=environ).path == Path("/nowhere/.lmx/config.toml")


# --- sections ------------------------------------------------------------------------------------


def test_ignored_sections_are_passed_over(tmp_path: Path) -> None:
    document = read(tmp_path, "[off]\nx = 1", {"LMX_OFF_Y": "1", "LMX_SERVER_OFF_Z": "1"})
    assert structure(document, SECTIONS, {"off", "server_off"}).get(Server) == Server()


def test_one_section_can_be_structured_before_the_others(tmp_path: Path) -> None:
    document = read(tmp_path, "[server]\nport = 5\n[routing]\norder = 1\n[later]")
    assert structure(document, SECTIONS[:1], document.tables).get(Server).port == 5


def test_a_class_without_a_section_is_a_key_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        settings_of(tmp_path).get(int)


# --- the environment -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("PORT", "8080", 8080),
        ("HOST", "localhost", "localhost"),
        ("HOST", "10.0.0.1", "10.0.0.1"),
        ("HOST", "'quoted'", "quoted"),
        ("HOST", "12345", "12345"),
        ("HOST", "true", "true"),
        ("HOST", "", ""),
        ("TLS", "true", True),
        ("TIMEOUT_S", "3", 3.0),
        ("LEVEL", "high", Level.HIGH),
        ("MODE", "closed", "closed"),
        ("LIMIT", "7", 7),
        ("DATA", "/srv/2026", Path("/srv/2026")),
        ("DATA", "2026", Path("2026")),
    ],
)
def test_variable_overrides_the_file(
    tmp_path: Path, variable: str, text: str, value: object
) -> None:
    file = "[server]\nport = 'masked'" if variable == "PORT" else "[server]\nport = 9"
    settings = settings_of(tmp_path, file, {f"LMX_SERVER_{variable}": text})
    assert getattr(settings.get(Server), variable.lower()) == value


def test_variable_may_hold_a_list_or_a_table(tmp_path: Path) -> None:
    environ = {"LMX_ROUTING_ORDER": '["a", "b"]', "LMX_ROUTING_DEFAULT": '{model = "m"}'}
    routing = settings_of(tmp_path, environ=environ).get(Routing)
    assert (routing.order, routing.default) == (("a", "b"), Rule("m"))


@pytest.mark.parametrize(
    ("variable", "text", "key", "message"),
    [
        ("LMX_SERVER_PORT", "abc", "server.port", "expected an integer, found 'abc'"),
        ("LMX_SERVER_PORT", "'1'", "server.port", "expected an integer, found '1'"),
        ("LMX_SERVER_PORT", "", "server.port", "expected an integer, found ''"),
        ("LMX_SERVER_PORT", "0", "server.port", "'port' must be >= 1: 0"),
        ("LMX_SERVER_TLS", "1", "server.tls", "expected true or false, found 1"),
        ("LMX_SERVER_PROT", "1", "server.prot", "unknown key; did you mean 'port'?"),
        ("LMX_SERVER_", "1", "server.", "unknown key"),
        ("LMX_SERVER_LEVEL", "mid", "server.level", "one of 'low', 'high', found 'mid'"),
        ("LMX_ROUTING_ORDER", "a", "routing.order", "expected a list, found 'a'"),
        ("LMX_ROUTING_ORDER", "[1]", "routing.order[0]", "expected a string, found 1"),
        ("LMX_ROUTING_DEFAULT", "{}", "routing.default.model", "is missing"),
    ],
)
def test_problem_of_a_variable_names_it(
    tmp_path: Path, variable: str, text: str, key: str, message: str
) -> None:
    (problem,) = problems_of(tmp_path, "[server]\nport = 5", {variable: text})
    assert (problem.source, problem.line, problem.key) == (variable, None, key)
    assert message in problem.message


@pytest.mark.parametrize("variable", ["LMX_HOME", "LMX_DEMO_MODEL", "LMX_SERVER", "SERVER_PORT"])
def test_other_variables_are_ignored(tmp_path: Path, variable: str) -> None:
    assert settings_of(tmp_path, environ={variable: "x"}).get(Server) == Server()


# What Kubernetes sets for a service called lmx-server.
SERVICE = {
    "LMX_SERVER_PORT": "tcp://10.0.0.7:1234",
    "LMX_SERVER_SERVICE_HOST": "10.0.0.7",
    "LMX_SERVER_SERVICE_PORT": "1234",
    "LMX_SERVER_SERVICE_PORT_HTTP_API": "1234",
    "LMX_SERVER_PORT_1234_TCP": "tcp://10.0.0.7:1234",
    "LMX_SERVER_PORT_1234_TCP_PROTO": "tcp",
    "LMX_SERVER_PORT_1234_TCP_PORT": "1234",
    "LMX_SERVER_PORT_1234_TCP_ADDR": "10.0.0.7",
}


def test_variables_that_kubernetes_sets_for_a_service_are_ignored(tmp_path: Path) -> None:
    environ = SERVICE | {"LMX_SERVER_TLS": "true"}
    assert settings_of(tmp_path, environ=environ).get(Server) == Server(tls=True)
    assert read(tmp_path, "", environ).ignored_variables == tuple(sorted(SERVICE))


@pytest.mark.parametrize("address", ["udp://10.0.0.7:1", "sctp://[fd00::7]:1", "tcp://h:65535"])
def test_a_service_may_have_any_protocol(tmp_path: Path, address: str) -> None:
    assert settings_of(tmp_path, environ={"LMX_SERVER_PORT": address}).get(Server) == Server()


@pytest.mark.parametrize(
    "environ",
    [
        {"LMX_SERVER_SERVICE_HOST": "10.0.0.7"},  # without a service beside it
        {"LMX_SERVER_PORT": "tcp://10.0.0.7"},
        {"LMX_SERVER_PORT": "http://10.0.0.7:1234"},
        SERVICE | {"LMX_SERVER_SERVICE": "x"},
        {"LMX_ROUTING_PORT": "tcp://10.0.0.7:1234", "LMX_SERVER_SERVICE_PORT": "1234"},
    ],
)
def test_other_variables_are_as_wrong_as_before(tmp_path: Path, environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="LMX_SERVER_"):
        settings_of(tmp_path, environ=environ)


def test_longest_section_name_owns_a_variable(tmp_path: Path) -> None:
    sections = [*SECTIONS, SettingsSection("server_window", Window)]
    document = read(tmp_path, "", {"LMX_SERVER_WINDOW_LOW": "3"})
    assert structure(document, sections).get(Window).low == 3


# --- good values ---------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
RULES = st.builds(Rule, TEXT, NUMBERS)
SERVERS = st.builds(
    Server,
    host=TEXT,
    port=st.integers(1, 65535),
    timeout_s=NUMBERS | st.integers(-(2**53), 2**53),
    tls=st.booleans(),
    level=st.sampled_from(Level),
    mode=st.sampled_from(["open", "closed"]),
    limit=st.none() | st.integers(-(2**63), 2**63 - 1),
    data=TEXT.map(lambda text: Path("/", text)),
)
ROUTINGS = st.builds(
    Routing,
    order=st.lists(TEXT).map(tuple),
    tags=st.frozensets(TEXT),
    default=RULES,
    rules=st.lists(RULES).map(tuple),
    aliases=st.dictionaries(TEXT, RULES, max_size=3),
)


def toml(value: object) -> str:
    """Render a value as TOML that fits in one line."""
    match value:
        case Enum():
            return toml(value.value)
        case Path():
            return toml(str(value))
        case dict():
            pairs = (f"{toml(key)} = {toml(item)}" for key, item in value.items())
            return f"{{{', '.join(pairs)}}}"
        case tuple() | frozenset():
            return f"[{', '.join(map(toml, value))}]"
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case bool() | int():
            return json.dumps(value)
        case float():
            return repr(value)
    return toml(known(value))


def known(value: object) -> dict[str, object]:
    items = attrs.asdict(value, recurse=False).items()  # type: ignore[arg-type]
    return {name: item for name, item in items if item is not None}


@given(server=SERVERS, routing=ROUTINGS)
def test_good_values_come_back(
    tmp_path_factory: pytest.TempPathFactory, server: Server, routing: Routing
) -> None:
    text = f"server = {toml(server)}\nrouting = {toml(routing)}\n"
    settings = settings_of(tmp_path_factory.mktemp("config"), text)
    assert (settings.get(Server), settings.get(Routing)) == (server, routing)
    assert type(settings.get(Server).timeout_s) is float


@given(server=SERVERS)
def test_good_values_come_back_from_the_environment(server: Server) -> None:
    environ = {f"LMX_SERVER_{key.upper()}": toml(value) for key, value in known(server).items()}
    document = Document(home=Path(), path=Path("config.toml"), text="", tables={}, environ=environ)
    assert structure(document, SECTIONS).get(Server) == server


def test_tilde_is_the_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/nowhere")
    assert settings_of(tmp_path, "[server]\ndata = '~/x'").get(Server).data == Path("/nowhere/x")
