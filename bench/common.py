"""What the benchmarks share: a daemon, a raw client, figures."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator

from attrs import define, field


@define
class Stream:
    """When the tokens of one stream came, in seconds since it was asked for.

    :ivar produced: tokens of the answer, if the request asked for usage: a frame may have several.
    """

    times: list[float] = field(factory=list)
    text: str = ""
    error: str = ""
    produced: int = 0
    tokens: list[str] = field(factory=list)
    margins: list[float] = field(factory=list)  # of the likeliest token over the next, in log-odds

    @property
    def first_s(self) -> float:
        return self.times[0]

    @property
    def gaps(self) -> list[float]:
        return [after - before for before, after in zip(self.times, self.times[1:], strict=False)]


class Client:
    """One keep-alive connection, so that the client costs as little as it can."""

    def __init__(self, url: str, token: str = "") -> None:
        self._key = f"authorization: Bearer {token}\r\n" if token else ""
        host, _, port = url.removeprefix("http://").partition(":")
        self._address = host, int(port)
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def post(self, path: str, body: dict[str, object]) -> bytes:
        """Return the whole answer to a request whose answer has a length."""
        await self._send("POST", path, json.dumps(body).encode())
        return await self._read_sized()

    async def get(self, path: str) -> bytes:
        await self._send("GET", path, b"")
        return await self._read_sized()

    async def stream(self, path: str, body: dict[str, object]) -> AsyncIterator[dict[str, object]]:
        """Yield the JSON of each frame of a stream."""
        await self._send("POST", path, json.dumps(body | {"stream": True}).encode())
        assert self._reader is not None
        while line := await self._reader.readline():
            if line.startswith(b"data: {"):
                yield json.loads(line[6:])
            elif line.startswith(b"data: [DONE]"):
                break
        self.close()

    def close(self) -> None:
        """Leave; the next request connects again."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None

    async def _send(self, method: str, path: str, body: bytes) -> None:
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(*self._address)
        head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n"
        head += f"{self._key}\r\n"
        self._writer.write(head.encode() + body)

    async def _read_sized(self) -> bytes:
        assert self._reader is not None
        head = await self._reader.readuntil(b"\r\n\r\n")
        headers = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:-2])
        if b"content-length" not in headers:  # the answer ends with the connection
            body = await self._reader.read()
            self.close()
            return body
        return await self._reader.readexactly(int(headers[b"content-length"]))


def chat(model: str, text: str, max_tokens: int, **fields: object) -> dict[str, object]:
    """Return a chat request of one message."""
    messages = [{"role": "user", "content": text}]
    return {"model": model, "messages": messages, "max_tokens": max_tokens, **fields}


async def timed_stream(url: str, body: dict[str, object]) -> Stream:
    """Run one stream on a connection of its own and note when its tokens came."""
    stream, began = Stream(), time.perf_counter()
    async for frame in Client(url).stream("/v1/chat/completions", body):
        if "error" in frame:
            stream.error = str(frame["error"])
        stream.produced = (frame.get("usage") or {}).get("completion_tokens", stream.produced)
        for choice in frame.get("choices", ()):
            if text := choice["delta"].get("content"):
                stream.times.append(time.perf_counter() - began)
                stream.text += text
            for token in (choice.get("logprobs") or {}).get("content", ()):
                best, second = (one["logprob"] for one in token["top_logprobs"])
                stream.tokens.append(token["token"])
                stream.margins.append(best - second)
    return stream


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def row(name: str, value: str, goal: str = "") -> None:
    print(f"| {name} | {value} | {goal} |", flush=True)


def head(title: str) -> None:
    print(f"\n## {title}\n\n| what | measured | goal |\n|---|---|---|")


median = statistics.median
