"""Asks the same in each dialect, and brings the answers to one form."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

import httpx2
from attrs import field, frozen


@frozen
class Turn:
    """A turn of the conversation that all dialects are asked with.

    :ivar calls: what an assistant called: id, name and arguments.
    :ivar answers: the id of the call that a tool's turn answers.
    """

    role: str
    text: str = ""
    calls: tuple[tuple[str, str, dict[str, Any]], ...] = ()
    answers: str = ""


@frozen(kw_only=True)
class Ask:
    """What is asked.

    :ivar tools: names and schemas.
    """

    model: str
    turns: tuple[Turn, ...]
    tools: Mapping[str, dict[str, Any]] = field(factory=dict)
    must_call: bool = False
    max_tokens: int = 256
    temperature: float = 0.0


@frozen(kw_only=True)
class Said:
    """An answer, whatever the dialect.

    :ivar calls: names and arguments.
    :ivar end: stop, length or tool_calls.
    :ivar error: the class of the failure: a status before the answer began, ``broken`` after it.
    """

    text: str = ""
    reasoning: str = ""
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    end: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: int | str = ""


class Dialect(Protocol):
    """One dialect."""

    path: str

    def body(self, ask: Ask) -> dict[str, Any]:
        """Return the body of a request."""
        ...

    def whole(self, answer: dict[str, Any]) -> Said:
        """Read a whole answer."""
        ...

    def streamed(self, events: list[dict[str, Any]]) -> Said:
        """Read a stream's events."""
        ...


async def say(http: httpx2.AsyncClient, dialect: Dialect, ask: Ask, *, stream: bool) -> Said:
    """Ask, whole or as a stream."""
    body = dialect.body(ask)
    if not stream:
        answer = await http.post(dialect.path, json=body)
        if answer.status_code != 200:
            return Said(error=answer.status_code)
        return dialect.whole(answer.json())
    async with http.stream("POST", dialect.path, json={**body, "stream": True}) as answer:
        if answer.status_code != 200:
            await answer.aread()
            return Said(error=answer.status_code)
        events = [json.loads(data) async for data in _data(answer.aiter_lines())]
    return dialect.streamed(events)


async def _data(lines: AsyncIterator[str]) -> AsyncIterator[str]:
    async for line in lines:
        if line.startswith("data: ") and line != "data: [DONE]":
            yield line.removeprefix("data: ")


class Chat:
    """`/v1/chat/completions`."""

    path = "/v1/chat/completions"

    def body(self, ask: Ask) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": ask.model,
            "messages": [_chat_message(turn) for turn in ask.turns],
            "max_tokens": ask.max_tokens,
            "temperature": ask.temperature,
            "stream_options": {"include_usage": True},
        }
        if ask.tools:
            functions = [{"name": name, "parameters": ask.tools[name]} for name in ask.tools]
            body["tools"] = [{"type": "function", "function": one} for one in functions]
            body["tool_choice"] = "required" if ask.must_call else "auto"
        return body

    def whole(self, answer: dict[str, Any]) -> Said:
        (choice,) = answer["choices"]
        message = choice["message"]
        return Said(
            text=message["content"] or "",
            reasoning=message.get("reasoning_content", ""),
            calls=tuple(
                (call["function"]["name"], json.loads(call["function"]["arguments"]))
                for call in message.get("tool_calls", ())
            ),
            end=choice["finish_reason"],
            prompt_tokens=answer["usage"]["prompt_tokens"],
            completion_tokens=answer["usage"]["completion_tokens"],
        )

    def streamed(self, events: list[dict[str, Any]]) -> Said:
        if "error" in events[-1]:
            return Said(error="broken")
        message: dict[str, Any] = {"content": "", "reasoning_content": "", "tool_calls": []}
        end = ""
        for choice in (choice for event in events for choice in event["choices"]):
            delta = choice["delta"]
            for name in ("content", "reasoning_content"):
                message[name] += delta.get(name, "")
            for call in delta.get("tool_calls", ()):
                if "id" in call:
                    function = {"name": call["function"]["name"], "arguments": ""}
                    message["tool_calls"].append({"function": function})
                function = message["tool_calls"][call["index"]]["function"]
                function["arguments"] += call["function"]["arguments"]
            end = choice["finish_reason"] or end
        choices = [{"message": message, "finish_reason": end}]
        return self.whole({"choices": choices, "usage": events[-1]["usage"]})


class Messages:
    """`/v1/messages`."""

    path = "/v1/messages"
    ends = {"end_turn": "stop", "max_tokens": "length", "tool_use": "tool_calls"}  # noqa: RUF012

    def body(self, ask: Ask) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": ask.model,
            "messages": [_anthropic_message(turn) for turn in ask.turns],
            "max_tokens": ask.max_tokens,
            "temperature": ask.temperature,
        }
        if ask.tools:
            body["tools"] = [{"name": name, "input_schema": ask.tools[name]} for name in ask.tools]
            body["tool_choice"] = {"type": "any" if ask.must_call else "auto"}
        return body

    def whole(self, answer: dict[str, Any]) -> Said:
        blocks, usage = answer["content"], answer["usage"]
        return Said(
            text="".join(block["text"] for block in blocks if block["type"] == "text"),
            reasoning="".join(b["thinking"] for b in blocks if b["type"] == "thinking"),
            calls=tuple((b["name"], b["input"]) for b in blocks if b["type"] == "tool_use"),
            end=self.ends[answer["stop_reason"]],
            prompt_tokens=usage["input_tokens"] + usage.get("cache_read_input_tokens", 0),
            completion_tokens=usage["output_tokens"],
        )

    def streamed(self, events: list[dict[str, Any]]) -> Said:
        if events[-1]["type"] == "error":
            return Said(error="broken")
        assert events[-1]["type"] == "message_stop"
        blocks: list[dict[str, Any]] = []
        inputs: dict[int, str] = {}
        end: dict[str, Any] = {}
        for event in events:
            match event["type"]:
                case "content_block_start":
                    assert event["index"] == len(blocks)
                    blocks.append(dict(event["content_block"]))
                case "content_block_delta":
                    delta = event["delta"]
                    block = blocks[event["index"]]
                    for name in ("text", "thinking"):
                        if name in delta:
                            block[name] += delta[name]
                    if delta["type"] == "input_json_delta":
                        index = event["index"]
                        inputs[index] = inputs.get(index, "") + delta["partial_json"]
                case "message_delta":
                    end = event
        for index, text in inputs.items():
            blocks[index]["input"] = json.loads(text or "{}")
        return self.whole({"content": blocks, "usage": end["usage"], **end["delta"]})


class Responses:
    """`/v1/responses`."""

    path = "/v1/responses"

    def body(self, ask: Ask) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": ask.model,
            "input": [item for turn in ask.turns for item in _items(turn)],
            "max_output_tokens": ask.max_tokens,
            "temperature": ask.temperature,
            "store": False,
        }
        if ask.tools:
            body["tools"] = [
                {"type": "function", "name": name, "parameters": ask.tools[name]}
                for name in ask.tools
            ]
            body["tool_choice"] = "required" if ask.must_call else "auto"
        return body

    def whole(self, answer: dict[str, Any]) -> Said:
        items = answer["output"]
        if answer["status"] == "failed":
            return Said(error="broken")
        parts = [part for item in items if item["type"] != "function_call" for part in _parts(item)]
        calls = tuple(
            (item["name"], json.loads(item["arguments"]))
            for item in items
            if item["type"] == "function_call"
        )
        is_cut = answer["status"] == "incomplete"
        return Said(
            text="".join(part["text"] for part in parts if part["type"] == "output_text"),
            reasoning="".join(part["text"] for part in parts if part["type"] == "reasoning_text"),
            calls=calls,
            end="length" if is_cut else "tool_calls" if calls else "stop",
            prompt_tokens=answer["usage"]["input_tokens"],
            completion_tokens=answer["usage"]["output_tokens"],
        )

    def streamed(self, events: list[dict[str, Any]]) -> Said:
        numbers = [event["sequence_number"] for event in events]
        assert numbers == sorted(set(numbers))
        deltas = [e["delta"] for e in events if e["type"] == "response.output_text.delta"]
        said = self.whole(events[-1]["response"])
        assert said.error or "".join(deltas) == said.text
        return said


DIALECTS = {"chat": Chat(), "messages": Messages(), "responses": Responses()}


def _chat_message(turn: Turn) -> dict[str, Any]:
    if turn.role == "tool":
        return {"role": "tool", "tool_call_id": turn.answers, "content": turn.text}
    calls = [
        {
            "id": call_id,
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
        for call_id, name, arguments in turn.calls
    ]
    message: dict[str, Any] = {"role": turn.role, "content": turn.text}
    return {**message, "tool_calls": calls} if calls else message


def _anthropic_message(turn: Turn) -> dict[str, Any]:
    if turn.role == "tool":
        block = {"type": "tool_result", "tool_use_id": turn.answers, "content": turn.text}
        return {"role": "user", "content": [block]}
    blocks: list[dict[str, Any]] = [{"type": "text", "text": turn.text}] if turn.text else []
    blocks += [
        {"type": "tool_use", "id": call_id, "name": name, "input": arguments}
        for call_id, name, arguments in turn.calls
    ]
    return {"role": turn.role, "content": blocks}


def _items(turn: Turn) -> list[dict[str, Any]]:
    if turn.role == "tool":
        return [{"type": "function_call_output", "call_id": turn.answers, "output": turn.text}]
    items: list[dict[str, Any]] = [{"role": turn.role, "content": turn.text}] if turn.text else []
    for call_id, name, arguments in turn.calls:
        written = json.dumps(arguments)
        call = {"type": "function_call", "call_id": call_id, "name": name, "arguments": written}
        items.append(call)
    return items


def _parts(item: dict[str, Any]) -> list[dict[str, Any]]:
    return item.get("content") or []
