"""The server that the clients are tried against, and what they ask it."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
from pydantic import BaseModel

ROOT = Path(__file__).parents[2]
REAL = "smollm2-135m-instruct"
CHAT_PATH = "/v1/chat/completions"


class Place(BaseModel, extra="forbid"):
    """A place, and how long to stay."""

    city: str
    days: int


PLACE = Place.model_json_schema()
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "Tells the weather.", "parameters": PLACE},
}
NOW = {"type": "function", "function": {"name": "now"}}
ARGUMENTS = {"city": "Rome", "days": 2}
_CALL = f'<tool_call>\n{{"name": "weather", "arguments": {json.dumps(ARGUMENTS)}}}\n</tool_call>'
TRIP = "Three days in Rome"  # what a small model can make a Place of
LONG = "sea " * 100  # more than fits "short"

# The parts that the fake models play; see lmx_kernel/testing/script.py. "counter" writes numbers,
# and what it must where it must.
SCRIPTS: dict[str, dict[str, Any]] = {
    "counter": {"answer_tokens": 8},
    "talker": {"says": "Hello there."},
    "caller": {"says": f"A moment.{_CALL}"},
    "asker": {"says": f"A moment.{_CALL}", "replies": [["sunny in", "It is sunny."]]},
    "vectors": {"embeds": True},
    "thinker": {"says": "<think>Who is it?</think>Hello!"},
    "short": {"answer_tokens": 8, "context_length": 64},
    "endless": {"tokens_per_s": 50},
    "sour": {"answer_tokens": 8, "sour": "vinegar"},
    "deadly": {"crash_at": 3, "times": 99},
    "slow": {"load_s": 3.0, "answer_tokens": 8},
    "broken": {"load_error": "its file is damaged"},
}
_COLD = {"deadly", "slow", "broken", "asker", "vectors"}
CONFIG = """
[plugins]
modules = ["lmx_kernel.testing.fake"]
[fake]
folder = "{folder}"
[model_folders]
home = false
hugging_face = false
lm_studio = false
paths = ["{models}"]
[models]
parallel = 1
context_length = 2048
autoload = {autoload}
[queue]
max_waiting = 1
[openai_api]
heartbeat_s = 1.0
[lmstudio_api]
heartbeat_s = 1.0
"""


class Server:
    """A running daemon.

    :ivar url: where it listens.
    :ivar records: the lines of its log so far.
    """

    def __init__(self, home: Path) -> None:
        self.records: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            [ROOT / ".venv/bin/python", "-m", "lmx_kernel", "serve", "--config", _set_up(home)],
            env={**os.environ, "LMX_HOME": str(home), "LMX_SERVER_PORT": "0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._follow_log, daemon=True).start()
        assert self._process.stdout
        self.url = self._process.stdout.readline().split()[-1]
        threading.Thread(target=self._process.stdout.read, daemon=True).start()
        for name in sorted(set(SCRIPTS) - _COLD):
            self.wait_for(0, partial(_is_loaded, name))

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(30)
        finally:
            self._process.kill()

    def wait_for(self, since: int, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the first line of the log from number ``since`` on that is ``wanted``."""

        def found() -> dict[str, Any] | None:
            return next(filter(wanted, self.records[since:]), None)

        with self._changed:
            record = self._changed.wait_for(found, timeout=60)
        assert record, "the server's log does not say it"
        return record

    def mark(self) -> int:
        """Return how long the log is when all that was answered so far is in it."""
        since = len(self.records)
        answer = httpx2.get(f"{self.url}/mark")
        record = self.wait_for(since, partial(_is_of, answer))
        return self.records.index(record) + 1

    @contextmanager
    def asked(self) -> Iterator[list[dict[str, Any]]]:
        """Yield a list that is filled at the end of the block: the chats that were asked in it."""
        since, chats = self.mark(), []
        yield chats
        chats += filter(_is_chat, self.records[since : self.mark()])

    @contextmanager
    def full(self) -> Iterator[Callable[[], None]]:
        """Let one answer of "endless" run and another wait, so there is no place for a third.

        Yields what ends it.
        """
        body = {"model": "endless", "messages": hi(), "stream": True, "n": 2}
        since = len(self.records)
        with httpx2.stream("POST", self.url + CHAT_PATH, json=body) as answer:
            lines = answer.iter_lines()
            while '"content":" ' not in next(lines):
                pass
            yield answer.close
        self.wait_for(since, partial(_is_of, answer))

    def retried(self, ask: Callable[[], Any]) -> Any:
        """Return what ``ask`` gets of "endless", for which there is no place when it asks first."""
        with self.asked() as chats, self.full() as end, ThreadPoolExecutor() as pool:
            since = len(self.records)
            answer = pool.submit(ask)
            self.wait_for(since, lambda record: record.get("status") == 429)
            end()
            answer.result(60)
        assert sorted(chat["status"] for chat in chats) == [200, 200, 429]
        return answer.result()

    def freed(self, begin: Callable[[], None]) -> None:
        """Check that nothing of "endless" runs any more after ``begin``, which leaves a stream."""
        since = self.mark()
        begin()
        record = self.wait_for(since, _is_chat)
        assert record["outcome"] == "cancelled"

    def _follow_log(self) -> None:
        assert self._process.stderr
        for line in self._process.stderr:
            with self._changed:
                self.records.append(json.loads(line))
                self._changed.notify_all()


def hi(text: str = "Hi") -> list[dict[str, str]]:
    """Return the messages of a chat of one turn."""
    return [{"role": "user", "content": text}]


def is_count(text: str, tokens: int) -> bool:
    """Return whether ``text`` is a whole answer of the model "counter" of so many tokens."""
    numbers = list(map(int, text.split()))
    return bool(numbers) and numbers == [(numbers[0] + n) % 4096 for n in range(tokens)]


def _set_up(home: Path) -> Path:
    folder = home / "fakes"
    folder.mkdir()
    for name, script in SCRIPTS.items():
        (folder / f"{name}.fake.json").write_text(json.dumps(script))
    own = Path(os.environ.get("LMX_HOME") or "~/.lmx").expanduser()
    config = home / "config.toml"
    autoload = json.dumps(sorted(set(SCRIPTS) - _COLD))
    config.write_text(CONFIG.format(folder=folder, models=own / "models", autoload=autoload))
    return config


def _is_loaded(name: str, record: dict[str, Any]) -> bool:
    return record["event"] == "model_loaded" and record["model"] == name


def _is_of(answer: httpx2.Response, record: dict[str, Any]) -> bool:
    ended = record["event"] == "request"
    return ended and bool(record["request_id"] == answer.headers["x-request-id"])


def _is_chat(record: dict[str, Any]) -> bool:
    return bool(record["event"] == "request" and record["path"] == CHAT_PATH)
