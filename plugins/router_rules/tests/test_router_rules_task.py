"""What requests are about."""

from __future__ import annotations

from collections import Counter

import pytest
from lmx_router_rules.task import TASKS, classify

from lmx_kernel.types import (
    ChatPrompt,
    Constraint,
    EmbeddingPrompt,
    GenerationRequest,
    Message,
    TextPart,
    TextPrompt,
    TokenPrompt,
    Tool,
    ToolChoice,
)


def chat(*turns, tools=(), **fields):
    messages = tuple(Message(role, (TextPart(text),)) for role, text in turns)
    return GenerationRequest(model="auto", prompt=ChatPrompt(messages, tools), **fields)


def test_there_are_enough_prompts_and_each_task_has_some_in_both_parts(load):
    known, apart = load("known"), load("apart")
    assert len(known) + len(apart) >= 300
    assert len(apart) * 3 >= len(known) + len(apart)
    assert {task for task, _ in known} == {task for task, _ in apart} == set(TASKS)


@pytest.mark.parametrize("part", ["known", "apart"])
def test_nine_of_ten_prompts_are_recognised(load, part):
    wrong = Counter((task, classify(request)) for task, request in load(part))
    right = sum(count for (task, found), count in wrong.items() if task == found)
    assert right / wrong.total() >= 0.9, wrong


def test_the_same_request_always_has_the_same_task(load):
    requests = [request for _, request in load("known")]
    assert [classify(one) for one in requests] == [classify(one) for one in reversed(requests)][
        ::-1
    ]


def test_what_a_request_carries_beats_what_it_says():
    code = ("user", "Write a Python function that sorts a list.")
    assert classify(chat(code)) == "code"
    assert classify(chat(code, tools=(Tool(name="run"),))) == "tools"
    assert classify(chat(code, constraint=Constraint("json_object"))) == "extraction"
    assert classify(GenerationRequest(model="a", prompt=EmbeddingPrompt((TextPrompt("x"),)))) == (
        "embedding"
    )


def test_tools_that_must_not_be_called_do_not_count():
    request = chat(
        ("user", "Tell me a joke"), tools=(Tool(name="run"),), tool_choice=ToolChoice(mode="none")
    )
    assert classify(request) == "chat"


def test_long_is_what_the_config_says():
    request = chat(("user", "Tell me a joke. " * 100))
    assert classify(request, long_tokens=401) == "chat"
    assert classify(request, long_tokens=400) == "long_context"


def test_a_wish_at_the_end_of_a_long_text_counts():
    text = "It was a quiet night at the harbour and nobody spoke. " * 60
    assert classify(chat(("user", f"{text}\nTranslate this into French."))) == "translation"


def test_a_follow_up_to_code_is_about_code():
    turns = [
        ("user", "Sort a list"),
        ("assistant", "```python\nsorted(x)\n```"),
        ("user", "Shorter!"),
    ]
    assert classify(chat(*turns)) == "code"
    assert classify(chat(turns[2])) == "chat"


def test_a_short_follow_up_is_about_what_the_conversation_began_with():
    opening = ("user", "Translate 'good night' into French."), ("assistant", "Bonne nuit.")
    assert classify(chat(*opening, ("user", "Are you sure?"))) == "translation"
    assert classify(chat(*opening, ("user", "Write a Python function that sorts."))) == "code"
    assert classify(chat(("user", "Are you sure?"))) == "chat"


def test_what_a_tool_answered_is_not_the_system_text():
    result = ("tool", '{"docker": "python api", "error": "exception: traceback"}')
    turns = ("user", "Is it raining in Graz?"), ("assistant", ""), result, ("user", "Ok, thanks")
    assert classify(chat(*turns)) == "chat"


@pytest.mark.parametrize(
    "text",
    [
        "Was kann die Katze in der Nacht sehen?",
        "Dreams: what is in the picture on the wall?",
        "Schreibe eine E-Mail auf Deutsch an meinen Chef.",
    ],
)
def test_everyday_words_say_nothing_of_a_task(text):
    assert classify(chat(("user", text))) == "chat"


@pytest.mark.parametrize(
    ("task", "text"),
    [
        ("translation", "How do I say thank you to a Dane?"),
        ("extraction", "Liste alle Orte: Wien, dann Graz"),
        ("extraction", "列出下文的地名"),
        ("reasoning", "Alle Vögel fliegen. Folgt daraus, dass Tweety fliegt?"),
        ("code", "How do I center a div with flexbox?"),
    ],
)
def test_other_tasks_have_their_words(task, text):
    assert classify(chat(("user", text))) == task


def test_the_system_text_counts():
    system = ("system", "You translate everything into Spanish.")
    assert classify(chat(system, ("user", "Good evening, ladies."))) == "translation"


@pytest.mark.parametrize("text", ["", "   ", "\n\n\n", "¿?", "😀" * 500, "\ud800", "0" * 5000])
def test_a_text_that_says_nothing_is_chat(text):
    assert classify(chat(("user", text))) == "chat"


def test_prompts_that_are_no_conversation_have_a_task():
    assert classify(GenerationRequest(model="a", prompt=TokenPrompt((1, 2)))) == "chat"
    completion = TextPrompt("def add(a, b):\n    return ")
    assert classify(GenerationRequest(model="a", prompt=completion)) == "code"
    assert classify(GenerationRequest(model="a", prompt=ChatPrompt(()))) == "chat"
