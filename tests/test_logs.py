"""Logs: one line for each request, no secrets, and a file that rotates."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import stat
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import httpx2 as httpx
import pytest
import structlog

from lmx_kernel import events
from lmx_kernel.observe.log import FILE, LogFile, LogSettings, configure, log_event, set_level
from lmx_kernel.observe.redact import MASK, one_line, redact
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import running_daemon, write_config, write_fake_models
from lmx_kernel.types import Usage

log = structlog.get_logger("lmx.test")
CANARY = "Canary7f3a9XQ"
TOKEN = "lmx-" + CANARY + "x" * 30


class Written:
    """What was written to standard error so far."""

    def __init__(self, capsys):
        self._capsys, self._text = capsys, ""

    def getvalue(self) -> str:
        self._text += self._capsys.readouterr().err
        return self._text


@pytest.fixture
def stderr(capsys):
    return Written(capsys)


@pytest.fixture(autouse=True)
def leave_no_handler():
    """Logging is one for the whole process."""
    before, level = logging.root.handlers[:], logging.root.level
    config = structlog.get_config()
    yield
    for handler in set(logging.root.handlers) - set(before):
        logging.root.removeHandler(handler)
        handler.close()
    logging.root.setLevel(level)
    structlog.configure(**config)


def lines(written: Written) -> list[dict]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


def file_lines(home: Path) -> list[dict]:
    return [json.loads(line) for line in (home / "logs" / FILE).read_text().splitlines()]


# --- lines ---------------------------------------------------------------------------------------


def test_a_line_goes_to_both_places_as_json(tmp_path, stderr):
    configure(LogSettings(), tmp_path)
    log.info("thing_happened", model="m", count=3, share=0.5, names=("a", "b"))
    (line,) = lines(stderr)
    assert datetime.fromisoformat(line.pop("timestamp")).tzinfo
    assert line == {
        "event": "thing_happened",
        "level": "info",
        "model": "m",
        "count": 3,
        "share": 0.5,
        "names": ["a", "b"],
    }
    assert file_lines(tmp_path) == lines(stderr)


def test_text_is_for_people_and_the_file_stays_json(tmp_path, stderr):
    configure(LogSettings(format="text"), tmp_path)
    log.warning("thing_happened", model="m")
    assert "thing_happened" in stderr.getvalue()
    with pytest.raises(ValueError, match="Expecting"):
        lines(stderr)
    assert file_lines(tmp_path)[0]["model"] == "m"


@pytest.mark.parametrize("settings", [LogSettings(), LogSettings(file=False)])
def test_only_the_daemon_writes_a_file_and_only_if_it_may(tmp_path, stderr, settings):
    configure(settings, None if settings.file else tmp_path)
    log.info("thing_happened")
    assert lines(stderr)
    assert list(tmp_path.iterdir()) == []


def test_the_level_can_be_changed_while_running(stderr):
    configure(LogSettings(level="warning"))
    log.info("first")
    set_level("debug")
    log.debug("second")
    set_level("error")
    log.warning("third")
    assert [line["event"] for line in lines(stderr)] == ["second"]


def test_what_libraries_say_is_a_line_too(stderr):
    configure(LogSettings())
    logging.getLogger("library").warning("Bearer %s was refused", CANARY)
    logging.getLogger("library").info("chatter")
    (line,) = lines(stderr)
    assert (line["event"], line["level"]) == ("Bearer *** was refused", "warning")


def test_any_value_makes_a_line(stderr):
    configure(LogSettings())
    log.info(
        "odd", big=2**80, path=Path("a"), nested={1: {"x": object}}, lone="\ud800", raw=b"\xff"
    )
    (line,) = lines(stderr)
    assert (line["big"], line["path"], line["lone"]) == (str(2**80), "a", "\\ud800")


def test_an_error_has_its_trace_without_secrets(stderr):
    configure(LogSettings())
    try:
        raise ValueError(f"GET https://u:{CANARY}@host/x?sig={CANARY} failed\x1b[2J")
    except ValueError:
        log.exception("failed")
    (line,) = lines(stderr)
    assert "Traceback" in line["exception"]
    assert "https://***@host/x" in line["exception"]
    assert "\x1b" not in line["exception"]
    assert line["exception"].count("\n") >= 2


USAGE = Usage(
    prompt_tokens=1,
    cached_tokens=0,
    completion_tokens=2,
    queue_s=0.0,
    first_token_s=None,
    total_s=0.0,
)
JOB = {"id": "j", "kind": "download", "done": 1.0, "total": None}


def test_what_happens_often_is_for_debugging(stderr):
    often = [
        events.RequestFinished(id="i", model="m", outcome="ok", usage=USAGE),
        events.Sampled(monitor="x"),
        events.LoadProgressed(model="m", share=0.5),
        events.JobChanged(state="running", **JOB),
    ]
    configure(LogSettings())
    for event in (*often, events.LoadStarted(model="m"), events.JobChanged(state="done", **JOB)):
        log_event(event)
    assert [line["event"] for line in lines(stderr)] == ["load_started", "job_changed"]
    set_level("debug")
    log_event(often[0])
    line = lines(stderr)[-1]
    assert (line["event"], line["completion_tokens"]) == ("request_finished", 2)


def test_what_somebody_should_look_at_is_a_warning(stderr):
    configure(LogSettings())
    for level in ("soft", "ease"):
        log_event(events.MemoryPressed(level=level, used_bytes=2, budget_bytes=1))
    log_event(events.LoadFailed(model="m", code="x", message="y"))
    told = [(line["level"], line.get("pressure")) for line in lines(stderr)]
    assert told == [("warning", "soft"), ("info", "ease"), ("warning", None)]


# --- redaction -----------------------------------------------------------------------------------

SECRETS = [
    "Authorization: Bearer {}",
    "authorization: Basic {}",
    "bearer {}",
    "https://user:{}@host/path",
    "https://{}@host",
    "https://host/file?X-Amz-Signature={}&a=b",
    "/v1/models?token={}",
    "/v1/models?a=b&api_key={}",
    "HF_TOKEN={}",
    "{{'hf_token': '{}'}}",
    '{{"api_key": "{}"}}',
    "{{'x-api-key': '{}', 'accept': '*/*'}}",
    "Cookie: session={}; other={}",
    "https://user:pw@host/file?a=b&sig={}",
    "set-cookie: a={}",
    "password = {}",
    "client_secret:{}",
    "lmx-{0}xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "the token hf_{}AbCdEfGh",
    "sk-{}AbCdEfGh",
    "sk-proj-{}_-AbCdEfGh",
    "sk-ant-api03-x_-{}AbCdEfGh",
    "sk-lm-AbCdEfGh:{}AbCdEfGh",
    "sk-or-v1-{}AbCdEfGh",
    "gsk_{}AbCdEfGh",
    "ghu_{}AbCdEfGh",
    "github_pat_11AAAA_{}AbCdEfGh",
    "glpat-{}AbCdEfGh",
    "xoxb-123456789012-{}",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIi{}.AbCdEfGh-_",
    "lmx serve --api-key {} --verbose",
    "--api-key={}",
    "--hf-token '{}'",
    "['--api-key', '{}', '--port', '1']",
    "tool --client-secret {}",
]
FORMS = ["AKIAIOSFODNN7EXAMPLE", "ASIAIOSFODNN7EXAMPLE", "AIza" + "x" * 35]


@pytest.mark.parametrize("text", SECRETS)
def test_secrets_in_a_text_are_masked(text):
    shown = redact(f"before {text.format(CANARY, CANARY)}, after")
    assert CANARY not in shown
    assert MASK in shown
    assert shown.startswith("before ")


@pytest.mark.parametrize("secret", FORMS)
def test_secrets_of_a_fixed_form_are_masked(secret):
    assert redact(f"before {secret}, after") == f"before {MASK}, after"


@pytest.mark.parametrize(
    "text",
    [
        "--max-tokens 5 --parallel 2",
        "the task-force-of-many-words and sk-learn",
        "POST /v1/chat/completions",
        "http://127.0.0.1:1234/v1 answered 404",
        "max_tokens=5, prompt_tokens: 7, tokens: 3",
        "lmx-plugin-model-folders 0.1.0",
        "req_0123456789abcdef01234567",
        "smollm2-135m-instruct",
        "mail me@example.org",
        "plugins.required: expected a list, found 'x'",
    ],
)
def test_what_is_no_secret_stays(text):
    assert redact(text) == text


@pytest.mark.parametrize(
    "name",
    [
        *("authorization", "Authorization", "proxy_authorization", "x-api-key", "api_key"),
        *("apikey", "hf_token", "HF_TOKEN", "token", "password", "client-secret", "set-cookie"),
    ],
)
def test_values_with_a_secret_name_are_masked_at_any_depth(stderr, name):
    configure(LogSettings())
    log.info("x", **{name: CANARY}, headers={name: CANARY, "deep": [{name: [CANARY]}]})
    assert CANARY not in stderr.getvalue()
    assert lines(stderr)[0][name] == MASK


def test_counts_and_names_are_no_secrets(stderr):
    configure(LogSettings())
    fields = {"key": "bot", "prompt_tokens": 3, "first_token_ms": 1.5, "tokens": [1], "token": ""}
    log.info("x", **fields)
    line = lines(stderr)[0]
    assert {name: line[name] for name in fields} == fields


@pytest.mark.parametrize("text", ["a\nb", "a\x1b[31m", "a\rb", "a\x00", "a\u202eb", "a\u2028b"])
def test_a_value_cannot_forge_a_line(text):
    shown = one_line(text)
    assert shown.isprintable()
    assert shown == one_line(shown)


def test_a_secret_at_the_cut_is_not_half_shown():
    for start in range(200, 260):
        assert CANARY not in one_line("/" + "x" * start + TOKEN, 256)


def test_redacting_takes_no_long_time_whatever_comes():
    for text in ("://" * 20_000, "token" * 20_000, "token " * 20_000, "bearer" + " " * 100_000):
        assert len(one_line(text)) <= 3 * 8192


# --- the file ------------------------------------------------------------------------------------


def modes(folder):
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


def test_a_full_file_is_put_aside(tmp_path, stderr):
    configure(LogSettings(max_bytes=1000, backups=2), tmp_path)
    for n in range(100):
        log.info("thing_happened", n=n)
    folder = tmp_path / "logs"
    assert {path.name for path in folder.iterdir()} == {FILE, f"{FILE}.1", f"{FILE}.2"}
    assert all(path.stat().st_size <= 1200 for path in folder.iterdir())
    assert modes(folder) == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert file_lines(tmp_path)[-1]["n"] == 99


def test_a_folder_that_cannot_be_written_costs_one_warning(tmp_path, stderr):
    (tmp_path / "logs").write_text("no folder")
    configure(LogSettings(), tmp_path)
    for n in range(3):
        log.info("thing_happened", n=n)
    told = [line["event"] for line in lines(stderr)]
    assert sorted(told) == ["log_file_failed"] + ["thing_happened"] * 3


@pytest.mark.linux("/dev/full")
def test_a_full_disk_costs_one_warning_and_the_file_goes_on_later(tmp_path, stderr):
    """Fault 20, for the log."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / FILE).symlink_to("/dev/full")
    configure(LogSettings(), tmp_path)
    for n in range(3):
        log.info("thing_happened", n=n)
    told = [line["event"] for line in lines(stderr)]
    assert sorted(told) == ["log_file_failed"] + ["thing_happened"] * 3
    (tmp_path / "logs" / FILE).unlink()
    log.info("thing_happened", n=4)
    assert [line["n"] for line in file_lines(tmp_path)] == [4]


def test_configuring_again_does_not_double_the_lines(tmp_path, stderr):
    for _ in range(3):
        configure(LogSettings(), tmp_path)
    log.info("thing_happened")
    assert len(lines(stderr)) == len(file_lines(tmp_path)) == 1
    assert sum(isinstance(handler, LogFile) for handler in logging.root.handlers) == 1


# --- a daemon ------------------------------------------------------------------------------------


def chat(model="m", text="hi", **fields):
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}


async def stop_and_read(daemon, home):
    """Return every text that a daemon left behind, by where."""
    assert await daemon.stop() == 0
    return {
        "stderr": (home / "daemon.log").read_text(),
        "file": "".join(path.read_text() for path in sorted((home / "logs").iterdir())),
        "stdout": (await daemon.process.stdout.read()).decode() + "\n".join(daemon.announced),
    }


async def test_a_request_is_one_line_with_all_there_is_to_know(tmp_path):
    write_fake_models(tmp_path, {"m": FakeModel()})
    config = write_config(tmp_path, ("lmx_openai_api.plugin",), '[server]\napi_key = "sesame"')
    async with (
        running_daemon(config) as daemon,
        httpx.AsyncClient(base_url=daemon.url, headers={"x-api-key": "sesame"}, timeout=60) as http,
    ):
        body = chat(text="a secret wish", max_tokens=5, n=2)
        answer = await http.post("/v1/chat/completions", json=body)
        usage = answer.json()["usage"]
        joint = {"model": "m", "prompt": ["a secret wish", "another one"], "max_tokens": 3}
        await http.post("/v1/completions", json=joint)
        await http.post("/v1/chat/completions", json=chat("nowhere"))
        await http.get("/v1/models", headers={"x-api-key": "wrong"})
        texts = await stop_and_read(daemon, tmp_path)

    told = [json.loads(line) for line in texts["file"].splitlines()]
    requests = [line for line in told if line["event"].startswith("request")]
    assert [line["status"] for line in requests] == [200, 200, 404, 401]
    first, second, missing, refused = requests
    assert first["request_id"] == answer.headers["x-request-id"]
    assert (first["key"], first["model"], first["outcome"], first["cause"]) == (
        ("config", "m", "ok", None)
    )
    assert first["prompt_tokens"] == usage["prompt_tokens"]
    assert first["completion_tokens"] == usage["completion_tokens"] == 10
    assert 0 <= first["queue_ms"] <= first["first_token_ms"] <= first["total_ms"] <= first["ms"]
    assert second["completion_tokens"] == 6
    assert "model" not in missing
    assert (missing["cause"], refused["cause"]) == ("model_not_found", "unauthorized")
    assert refused["key"] == ""
    assert not [place for place, text in texts.items() if "secret wish" in text]


async def test_a_request_whose_client_left_is_told_as_cancelled(tmp_path):
    write_fake_models(tmp_path, {"m": FakeModel(tokens_per_s=50, context_length=8192)})
    config = write_config(tmp_path, ("lmx_openai_api.plugin",))
    async with running_daemon(config) as daemon:
        async with httpx.AsyncClient(base_url=daemon.url, timeout=60) as http:
            body = chat(stream=True)
            async with http.stream("POST", "/v1/chat/completions", json=body) as answer:
                async for _ in answer.aiter_lines():
                    break
        async with asyncio.timeout(60):
            while not (found := [one for one in file_lines(tmp_path) if one["event"] == "request"]):
                await asyncio.sleep(0.02)
    (line,) = found
    assert (line["outcome"], line["cause"], line["model"]) == ("cancelled", "client_left", "m")


async def test_no_secret_is_told_anywhere(tmp_path):
    """Fault 19: canaries wherever a client or an owner can put them, with errors provoked."""
    scripts = {
        "m": FakeModel(),
        "bad": FakeModel(load_error=f"no, token={CANARY}"),
        "crash": FakeModel(crash_at=2, times=9),
    }
    write_fake_models(tmp_path, scripts)
    config = write_config(
        tmp_path,
        ("lmx_openai_api.plugin", "missing_plugin"),
        f'[server]\napi_key = "{TOKEN}"\n[log]\nlevel = "debug"\nformat = "text"',
    )
    env = {"HF_TOKEN": f"hf_{CANARY}AbCdEfGhIjKl", "LMX_API_KEY": CANARY}
    right, wrong = {"authorization": f"Bearer {TOKEN}"}, {"authorization": f"Bearer {CANARY}"}
    noise = {"cookie": f"a={CANARY}", "x-request-id": f"Bearer {CANARY}", "x-api-key": CANARY}
    async with (
        running_daemon(config, **env) as daemon,
        httpx.AsyncClient(base_url=daemon.url, timeout=60) as http,
    ):
        for headers in (right | noise, wrong | noise):
            for model in (
                "m",
                "bad",
                "crash",
                f"lmx-{CANARY}",
                f"https://u:{CANARY}@h/x?t={CANARY}",
            ):
                body = chat(model, CANARY, max_tokens=4)
                url = f"/v1/chat/completions?token={CANARY}&key={CANARY}"
                await http.post(url, json=body, headers=headers)
            for content in (CANARY, f'{{"model": "{CANARY}', f'{{"{CANARY}": 1}}'):
                await http.post("/v1/chat/completions", content=content, headers=headers)
            for path in (f"/v1/{TOKEN}", f"/x/hf_{CANARY}AbCdEfGh", f"/t/token={CANARY}"):
                await http.get(path, headers=headers)
            await http.get(f"http://u:{CANARY}@{daemon.url.removeprefix('http://')}/v1/models")
        reader, writer = await asyncio.open_connection(*daemon.url[7:].split(":"))
        writer.write(f"GET /x HTTP/1.1\r\nbroken {CANARY}\r\n\r\n".encode())
        await reader.read()
        writer.close()
        texts = await stop_and_read(daemon, tmp_path)
    assert len(texts["file"].splitlines()) > 25
    for place, text in texts.items():
        assert not re.findall(f".*{CANARY}.*", text), place


def test_a_broken_config_does_not_show_its_secrets(tmp_path):
    (tmp_path / "config.toml").write_text("[server]\napi_key = 99887766\nport = 'x'\n")
    result = subprocess.run(
        [sys.executable, "-m", "lmx_kernel", "config", "check"],
        capture_output=True,
        text=True,
        env={**os.environ, "LMX_HOME": str(tmp_path)},
        check=False,
    )
    assert result.returncode == 78
    assert "server.api_key" in result.stderr
    assert "99887766" not in result.stderr + result.stdout
