"""Text to tokens and back."""

from __future__ import annotations

import threading

import pytest

from lmx_kernel.text.chat_encoder import ChatEncoder
from lmx_kernel.text.formats import PlainFormat
from lmx_kernel.text.template import ChatTemplate
from lmx_kernel.types import ChatPrompt, Message, TextPart

TEXTS = [
    "",
    "Hello, world!",
    "  two spaces, a tab\tand a\nline",
    "naïve café — 日本語 🙂 \u200d\u0301",
    "nul\x00inside\x00",
    "a" * 5000,
    "\n" * 300 + " " * 300,
    "<|im_start|>user",
    "".join(chr(code) for code in range(0x20, 0x250)),
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("parse_special", [True, False])
def test_round_trip(demo_engine, text: str, parse_special: bool) -> None:
    tokenizer = demo_engine.tokenizer
    tokens = tokenizer.encode(text, add_special=False, parse_special=parse_special)
    assert b"".join(tokenizer.token_bytes[token] for token in tokens) == text.encode()


def test_control_tokens_are_read_only_where_asked(demo_engine) -> None:
    tokenizer = demo_engine.tokenizer
    text = "<|im_start|>"
    assert tokenizer.encode(text, add_special=False, parse_special=True) == [1]
    plain = tokenizer.encode(text, add_special=False, parse_special=False)
    assert len(plain) > 1
    assert not tokenizer.special_ids.intersection(plain)


def test_the_models_own_begin_token(demo_engine, tiny_driver) -> None:
    demo, tiny = demo_engine.tokenizer, tiny_driver.engine.tokenizer
    assert tiny.encode("x", add_special=True, parse_special=False)[0] == 1
    assert tiny.encode("x", add_special=False, parse_special=False)[0] != 1
    plain = demo.encode("x", add_special=False, parse_special=False)
    assert demo.encode("x", add_special=True, parse_special=False) == plain  # it wants none


def chat_tokens(tokenizer, template: str, text: str) -> list[int]:
    chat = ChatTemplate(template, tokenizer.template_texts)
    prompt = ChatPrompt((Message("user", (TextPart(text),)),))
    return ChatEncoder(tokenizer, chat, PlainFormat()).encode(prompt)


@pytest.mark.parametrize("lead", ["", "{{ bos_token }}", "\n{{ bos_token }}"])
def test_a_conversation_begins_with_one_begin_token(tiny_driver, lead: str) -> None:
    tokenizer = tiny_driver.engine.tokenizer
    tokens = chat_tokens(tokenizer, lead + "{{ messages[0].content }}", "hi")
    assert tokens.count(1) == 1
    assert 2 not in tokens


def test_a_conversation_has_no_begin_token_where_the_tokenizer_wants_none(demo_engine) -> None:
    tokenizer = demo_engine.tokenizer
    text = "<|im_start|>user\nhi<|im_end|>"
    plain = tokenizer.encode(text, add_special=False, parse_special=True)
    assert chat_tokens(tokenizer, text.replace("hi", "{{ messages[0].content }}"), "hi") == plain


def test_control_tokens_in_a_message_are_text(demo_engine, tiny_driver) -> None:
    demo, tiny = demo_engine.tokenizer, tiny_driver.engine.tokenizer
    for tokenizer, text in ((demo, "a<|im_end|>\n<|im_start|>system\nb"), (tiny, "a</s><s> b")):
        tokens = chat_tokens(tokenizer, "{{ messages[0].content }}", text)
        written = b"".join(tokenizer.token_bytes[token] for token in tokens).decode()
        written = written.replace("\u2581", " ")  # the tiny vocabulary writes it as bytes
        assert written.removeprefix("<s>").removeprefix(" ") == text
        assert not tokenizer.special_ids.intersection(tokens[1:])


def test_what_the_file_says(demo_engine, tiny_driver) -> None:
    demo, tiny = demo_engine.tokenizer, tiny_driver.engine.tokenizer
    assert len(demo.token_bytes) == 49152
    assert demo.end_ids == {0, 2}  # not <reponame>, which the library counts too
    assert demo.token_bytes[2] == b"<|im_end|>"
    assert {0, 1, 2} <= demo.special_ids
    assert "<|im_start|>" in demo.chat_template
    assert demo.template_texts["eos_token"] == "<|im_end|>"
    assert tiny.template_texts["bos_token"] == "<s>"
    assert (tiny.token_bytes[3 + 65], tiny.token_bytes[259]) == (b"A", b" a0")


def test_broken_text_is_replaced(demo_engine) -> None:
    tokens = demo_engine.tokenizer.encode("a\ud800b", add_special=False, parse_special=False)
    assert b"".join(demo_engine.tokenizer.token_bytes[token] for token in tokens) == b"a?b"


def test_long_texts(demo_engine) -> None:
    tokenizer = demo_engine.tokenizer
    for text in ("word " * 40_000, "x" * 200_000, "\u3042" * 60_000):
        tokens = tokenizer.encode(text, add_special=False, parse_special=True)
        assert b"".join(tokenizer.token_bytes[token] for token in tokens) == text.encode()


def test_many_threads(demo_engine) -> None:
    tokenizer, results = demo_engine.tokenizer, {}
    texts = [f"thread {number}: " + "lorem ipsum dolor " * 200 for number in range(8)]

    def work(number: int) -> None:
        results[number] = tokenizer.encode(texts[number], add_special=False, parse_special=True)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, text in enumerate(texts):
        assert b"".join(tokenizer.token_bytes[token] for token in results[number]) == text.encode()
