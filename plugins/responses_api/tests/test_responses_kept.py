"""Responses that are kept: conversations, background, streams from any event on, owners."""

from __future__ import annotations

import asyncio

import openai
import pytest
from attrs import evolve
from lmx_responses_api.ids import ItemPlace, find_place, item_id

from lmx_kernel.errors import EngineCrashedError, UnavailableError
from lmx_kernel.testing.stub_kernel import MODEL, hello
from lmx_kernel.types import Finished, TextDelta

LS = {"type": "function", "name": "ls"}


def say(live, text):
    live.receive(TextDelta(0, text, (1,)))


def finish(live):
    live.receive(Finished(0, "stop"))
    live.end("ok")


async def test_a_conversation_goes_on(api):
    first = await api.made(input="One", instructions="Be brief.")
    second = await api.made(
        input=[{"role": "user", "content": "Two"}], previous_response_id=first["id"]
    )
    assert second["previous_response_id"] == first["id"]
    third = await api.streamed(input="Three", previous_response_id=second["id"], store=False)
    assert third[-1]["response"]["status"] == "completed"
    assert api.said == [
        ("user", "One"),
        ("assistant", "Hello"),
        ("user", "Two"),
        ("assistant", "Hello"),
        ("user", "Three"),
    ]
    lost = third[-1]["response"]["id"]
    error = (await api.post(previous_response_id=lost)).json()["error"]
    assert (error["code"], error["param"]) == (
        "previous_response_not_found",
        "previous_response_id",
    )


async def test_a_conversation_goes_on_after_calls_and_reasoning(api):
    api.kernel.play = api.play(*api.thoughts("Hm"), *api.call("ls", "{}"), reason="tool_calls")
    first = await api.made(tools=[LS])
    result = {"type": "function_call_output", "call_id": "call_0", "output": "a.txt"}
    await api.made(input=[result], previous_response_id=first["id"], tools=[LS])
    assert api.said == [("user", "Hi"), ("assistant", ""), ("tool", "a.txt")]
    turn = api.prompt.messages[1]
    assert (turn.reasoning, turn.tool_calls[0].name) == ("Hm", "ls")


async def test_calls_that_were_cut_off_are_not_in_the_conversation(api):
    api.kernel.play = api.play(*api.texts("So"), *api.call("ls", '{"a'), reason="length")
    first = await api.made(tools=[LS])
    await api.made(previous_response_id=first["id"])
    assert api.said == [("user", "Hi"), ("assistant", "So"), ("user", "Hi")]
    assert not api.prompt.messages[1].tool_calls


async def test_items_are_referred_to(api):
    first = await api.made(input=[{"role": "user", "content": "One"}])
    listed = (await api.get(f"{first['id']}/input_items")).json()["data"]
    ids = [listed[0]["id"], first["output"][0]["id"]]
    references = [{"type": "item_reference", "id": its_id} for its_id in ids]
    await api.made(input=[*references, {"role": "user", "content": "Two"}])
    assert api.said == [("user", "One"), ("assistant", "Hello"), ("user", "Two")]
    api.kernel.key = "bob"
    assert (await api.post(input=references)).status_code == 400


async def test_it_is_shown_again_as_it_was(api):
    api.kernel.play = api.play(*api.thoughts("Hm"), *api.texts("So"))
    made = await api.made(metadata={"a": "b"}, tools=[LS])
    assert (await api.get(made["id"])).json() == made
    found = await api.sdk.responses.retrieve(made["id"])
    assert found.output_text == "So"
    include = {"include[]": "reasoning.encrypted_content"}
    again = (await api.get(made["id"], **include)).json()
    assert again["output"][0]["encrypted_content"].startswith("lmx1.")


async def test_a_stream_is_kept_before_its_end_is_told(api):
    events = await api.streamed()
    assert (await api.get(events[-1]["response"]["id"])).json() == events[-1]["response"]


async def test_a_failed_stream_is_kept(api):
    api.kernel.play = api.play(*api.texts("Hel"), error=EngineCrashedError("the worker crashed"))
    events = await api.streamed()
    found = (await api.get(events[0]["response"]["id"])).json()
    assert (found["status"], found["error"]["code"]) == ("failed", "server_error")


async def test_nothing_is_kept_unasked(api):
    response = await api.made(store=False)
    assert response["store"] is False
    with pytest.raises(openai.NotFoundError):
        await api.sdk.responses.retrieve(response["id"])


async def test_others_do_not_see_it(api):
    api.kernel.key = "alice"
    response = await api.made()
    api.kernel.key = "bob"
    path = response["id"]
    assert (await api.get(path)).status_code == 404
    assert (await api.get(f"{path}/input_items")).status_code == 404
    assert (await api.post(f"/{path}/cancel")).status_code == 404
    assert (await api.http.delete(f"/v1/responses/{path}")).status_code == 404
    assert (await api.post(previous_response_id=path)).status_code == 400
    api.kernel.key = "alice"
    assert (await api.get(path)).status_code == 200


async def test_it_is_forgotten(api):
    response = await api.made()
    gone = await api.http.delete(f"/v1/responses/{response['id']}")
    assert gone.json() == {"id": response["id"], "object": "response", "deleted": True}
    with pytest.raises(openai.NotFoundError):
        await api.sdk.responses.delete(response["id"])


async def test_input_items(api):
    items = [
        {"role": "user", "content": "One"},
        {"role": "assistant", "content": "Two"},
        {"type": "function_call", "id": "fc_own", "call_id": "c", "name": "ls", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "a"},
    ]
    response = await api.made(input=items)
    page = await api.sdk.responses.input_items.list(response["id"], limit=3, order="asc")
    assert [item.type for item in page.data] == ["message", "message", "function_call"]
    assert page.data[0].content[0].text == "One"
    assert page.data[2].id == "fc_own"
    assert page.has_more
    path = f"{response['id']}/input_items"
    rest = (await api.get(path, order="asc", after="fc_own")).json()
    assert [item["type"] for item in rest["data"]] == ["function_call_output"]
    assert (rest["object"], rest["has_more"]) == ("list", False)
    assert rest["first_id"] == rest["last_id"] == rest["data"][0]["id"]
    latest = (await api.get(path, limit=1)).json()
    assert latest["data"][0]["type"] == "function_call_output"
    for query, param in (
        ({"after": "x"}, "after"),
        ({"limit": 0}, "limit"),
        ({"order": "up"}, "order"),
    ):
        refused = await api.get(path, **query)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


async def test_background_is_polled(api):
    api.kernel.play = lambda live: live.admit(7)
    response = await api.sdk.responses.create(model=MODEL, input="Hi", background=True)
    assert (response.status, response.background) == ("queued", True)
    await api.kernel.asked.wait()
    live = api.kernel.answers[0]
    say(live, "Hello")
    found = await api.sdk.responses.retrieve(response.id)
    assert (found.status, found.output, found.usage) == ("in_progress", [], None)
    refused = await api.post(previous_response_id=response.id)
    assert refused.status_code == 400
    finish(live)
    await asyncio.gather(*api.kernel.stored_answers.tasks)
    found = await api.sdk.responses.retrieve(response.id)
    assert (found.status, found.output_text, found.id) == ("completed", "Hello", response.id)
    assert found.completed_at == found.created_at + 5
    api.kernel.play = hello
    await api.made(previous_response_id=response.id)


async def test_background_is_cancelled(api):
    api.kernel.play = lambda live: (live.admit(7), say(live, "Hel"))
    response = await api.made(background=True)
    cancelled = await api.sdk.responses.cancel(response["id"])
    assert (cancelled.status, cancelled.output_text) == ("cancelled", "Hel")
    assert cancelled.output[0].status == "incomplete"
    again = await api.sdk.responses.cancel(response["id"])
    assert again.status == "cancelled"
    frames = await api.http.get(f"/v1/responses/{response['id']}?stream=true")
    assert '"status":"cancelled"' in frames.text.split("\n\n")[-2]


async def test_only_background_is_cancelled(api):
    response = await api.made()
    refused = await api.post(f"/{response['id']}/cancel")
    assert refused.status_code == 400
    assert "background" in refused.json()["error"]["message"]


async def test_background_fails(api):
    api.kernel.play = api.play(*api.texts("Hel"), error=EngineCrashedError("the worker crashed"))
    response = await api.made(background=True)
    await asyncio.gather(*api.kernel.stored_answers.tasks)
    found = (await api.get(response["id"])).json()
    assert (found["status"], found["error"]["message"]) == ("failed", "the worker crashed")


async def test_a_background_stream_is_read_again_from_any_event(api, events):
    api.kernel.play = lambda live: (live.admit(7), say(live, "Hel"))
    seen = []
    async with await api.loose_sdk.responses.create(
        model=MODEL, input="Hi", background=True, stream=True
    ) as stream:
        async for event in stream:
            seen.append(event)
            if event.type == "keepalive":
                break  # the client leaves; its response goes on
    assert [event.type for event in seen[:3]] == [
        "response.created",
        "response.queued",
        "response.in_progress",
    ]
    last = seen[-2].sequence_number
    assert seen[-1].sequence_number == last  # it has no number of its own
    live = api.kernel.answers[0]
    say(live, "lo")
    finish(live)
    await asyncio.gather(*api.kernel.stored_answers.tasks)
    path = seen[0].response.id
    whole = events((await api.get(path, stream="true")).text)
    assert [event["sequence_number"] for event in whole] == list(range(len(whole)))
    assert [event["type"] for event in whole[: last + 1]] == [event.type for event in seen[:-1]]
    rest = events((await api.get(path, stream="true", starting_after=last)).text)
    assert rest == whole[last + 1 :]
    assert rest[-1]["response"] == (await api.get(path)).json()
    assert rest[-1]["response"]["output"][0]["content"][0]["text"] == "Hello"


async def test_a_stream_waits_for_what_is_not_computed_yet(api, events):
    api.kernel.play = lambda live: live.admit(7)
    response = await api.made(background=True)
    reading = asyncio.create_task(api.get(response["id"], stream="true"))
    live = api.kernel.answers[0]
    say(live, "Hello")
    finish(live)
    found = [event for event in events((await reading).text) if event["type"] != "keepalive"]
    assert found[-1]["type"] == "response.completed"


async def test_a_stream_of_a_response_that_is_deleted_ends(api, events):
    api.kernel.play = lambda live: (live.admit(7), say(live, "Hel"))
    response = await api.made(background=True)
    path = f"/v1/responses/{response['id']}"
    async with api.http.stream("GET", path, params={"stream": "true"}) as answer:
        lines = answer.aiter_lines()
        read = [await anext(lines)]
        await api.http.delete(path)
        read += [line async for line in lines]
    last = events("\n".join([*read, ""]))[-1]
    assert (last["type"], last["response"]["status"]) == ("response.incomplete", "cancelled")


async def test_a_stream_says_that_the_response_goes_on_later(api, events, monkeypatch):
    response = await api.made()
    stored = api.kernel.stored_answers.entries[response["id"]]
    stored.answer = evolve(stored.answer, outcome=None, ended_at=None)

    class Stopping:
        id, model, outcome = response["id"], MODEL, None

        async def next(self, timeout_s=None):
            raise UnavailableError("the server is stopping")

        def close(self):
            pass

    async def read(answer_id, owner):
        return Stopping()

    monkeypatch.setattr(type(api.kernel.stored_answers), "read", staticmethod(read))
    last = events((await api.get(response["id"], stream="true")).text)[-1]
    assert (last["type"], last["message"]) == ("error", "the server is stopping")
    assert last["sequence_number"] == 1


async def test_the_oldest_messages_are_dropped(api):
    api.kernel.context_length, api.kernel.tokens_per_message = 100, 10
    items = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "0"},
        {"type": "function_call", "call_id": "c", "name": "ls", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "a"},
        *({"role": "user", "content": str(number)} for number in range(1, 9)),
    ]
    fields = {"input": items, "max_output_tokens": 20}
    await api.made(**fields, truncation="auto")
    # 80 tokens are left: the instructions and seven others
    assert api.said == [("developer", "Be brief."), *(("user", str(n)) for n in range(2, 9))]
    assert len(api.kernel.counted) <= 6
    await api.made(**fields)
    assert len(api.prompt.messages) == 12


async def test_results_are_dropped_with_their_calls(api):
    api.kernel.context_length, api.kernel.tokens_per_message = 100, 10
    calls = [
        {"type": "function_call", "call_id": f"c{n}", "name": "ls", "arguments": "{}"}
        for n in range(2)
    ]
    results = [
        {"type": "function_call_output", "call_id": f"c{n}", "output": "a"} for n in range(2)
    ]
    users = [{"role": "user", "content": str(number)} for number in range(8)]
    fields = {"max_output_tokens": 10, "truncation": "auto"}
    await api.made(input=[*calls, *results, *users], **fields)
    assert api.said == [("user", str(number)) for number in range(8)]
    # The last call is kept with its results.
    await api.made(input=[*users, *users, *calls, *results], **fields)
    assert [role for role, _ in api.said[-3:]] == ["assistant", "tool", "tool"]


def test_ids_tell_where_items_are():
    place = ItemPlace("resp_" + "a" * 32, is_input=True, index=3)
    assert find_place(item_id("message", place)) == place
    assert find_place("msg_1") is None


async def test_one_answer_is_one_response(api):
    api.kernel.play = hello
    responses = [await api.made() for _ in range(2)]
    assert responses[0]["id"] != responses[1]["id"]
    assert responses[0]["id"].startswith("resp_")
