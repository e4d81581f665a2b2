"""Text to tokens and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lmx_mlx_backend.tokenizer import MlxTokenizer

from lmx_kernel.engine import Tokenizer as Protocol
from lmx_kernel.errors import ModelUnusableError
from lmx_kernel.text.chat_encoder import ChatEncoder
from lmx_kernel.text.formats import PlainFormat
from lmx_kernel.text.template import ChatTemplate
from lmx_kernel.types import ChatPrompt, Message, TextPart


@pytest.fixture
def tokenizer(llama: Path) -> MlxTokenizer:
    """Byte-level, with a begin token that the post-processor puts."""
    return MlxTokenizer.open(llama, 300)


def text_of(tokenizer: Protocol, tokens: list[int]) -> str:
    return b"".join(tokenizer.token_bytes[token] for token in tokens).decode()


def test_bytes_of_tokens_make_the_text(tokenizer: MlxTokenizer) -> None:
    text = " Hello,\n\t wörld \U0001f600\x00 \u2581"
    tokens = tokenizer.encode(text, add_special=False, parse_special=True)
    assert text_of(tokenizer, tokens) == text


def test_control_tokens_are_read_only_if_asked(tokenizer: MlxTokenizer) -> None:
    parsed = tokenizer.encode("<|im_end|>", add_special=False, parse_special=True)
    assert parsed == [1]
    plain = tokenizer.encode("<|im_end|>", add_special=False, parse_special=False)
    assert len(plain) == len("<|im_end|>")
    assert text_of(tokenizer, plain) == "<|im_end|>"


def test_the_begin_token_comes_only_if_asked(tokenizer: MlxTokenizer) -> None:
    assert tokenizer.encode("a", add_special=True, parse_special=False)[0] == 0
    assert len(tokenizer.encode("a", add_special=False, parse_special=False)) == 1


@pytest.mark.parametrize("puts", [True, False])
@pytest.mark.parametrize("wants", [True, False])
def test_the_config_decides_on_the_begin_token(llama: Path, puts: bool, wants: bool) -> None:
    if not puts:
        path = llama / "tokenizer.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"post_processor": None}))
    path = llama / "tokenizer_config.json"
    config = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(config | {"add_bos_token": wants}))
    tokenizer = MlxTokenizer.open(llama, 300)
    assert tokenizer.encode("a", add_special=True, parse_special=False).count(0) == wants
    assert tokenizer.encode("a", add_special=False, parse_special=False).count(0) == 0


@pytest.mark.parametrize("lead", ["", "{{ bos_token }}"])
def test_a_conversation_begins_with_one_begin_token(tokenizer: MlxTokenizer, lead: str) -> None:
    tokenizer.chat_template = lead + "{{ messages[0].content }}"
    template = ChatTemplate(tokenizer.chat_template, tokenizer.template_texts)
    prompt = ChatPrompt((Message("user", (TextPart("a<|im_end|><s>b"),)),))
    tokens = ChatEncoder(tokenizer, template, PlainFormat()).encode(prompt)
    assert tokens[0] == 0
    assert text_of(tokenizer, tokens) == "<s>a<|im_end|><s>b"
    assert not tokenizer.special_ids.intersection(tokens[1:])


def test_what_a_text_is_made_of(tokenizer: MlxTokenizer) -> None:
    assert len(tokenizer.token_bytes) == 300
    assert tokenizer.token_bytes[1] == b"<|im_end|>"
    assert tokenizer.end_ids == {1}
    assert {0, 1} <= tokenizer.special_ids
    assert set(range(259, 300)) <= tokenizer.special_ids  # the model has more logits than tokens
    assert tokenizer.token_bytes[299] == b""
    visible = tokenizer.reader.token_to_id("<tool>")
    assert visible not in tokenizer.special_ids
    assert tokenizer.template_texts == {"bos_token": "<s>", "eos_token": "<|im_end|>"}


def test_lone_surrogates_do_no_harm(tokenizer: MlxTokenizer) -> None:
    tokens = tokenizer.encode("a\ud800b", add_special=False, parse_special=True)
    assert text_of(tokenizer, tokens) == "a?b"


@pytest.mark.parametrize("name", ["generation_config.json", "config.json"])
def test_end_tokens_are_named_by_configs(llama: Path, name: str) -> None:
    path = llama / name
    config = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(config | {"eos_token_id": [5, 6]}))
    ends = MlxTokenizer.open(llama, 300).end_ids
    assert {1, 5, 6} <= ends


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"chat_template.jinja": "own"}, "own"),
        ({"chat_template.json": '{"chat_template": "json"}'}, "json"),
        ({"tokenizer_config.json": '{"chat_template": "inner"}'}, "inner"),
        (
            {
                "tokenizer_config.json": json.dumps(
                    {"chat_template": [
                        {"name": "tool", "template": "t"}, {"name": "default", "template": "d"}
                    ]}
                )
            },
            "d",
        ),
        ({"tokenizer_config.json": "{}"}, None),
    ],
)  # fmt: skip
def test_the_template_is_found_where_it_is(llama: Path, files: Any, expected: str | None) -> None:
    for name, text in files.items():
        (llama / name).write_text(text)
    assert MlxTokenizer.open(llama, 300).chat_template == expected


def test_a_damaged_tokenizer(llama: Path) -> None:
    (llama / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelUnusableError, match=r"^tokenizer\.json: "):
        MlxTokenizer.open(llama, 300)


def test_vocabularies_of_the_sentencepiece_kind(llama: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, normalizers

    vocabulary = {"<unk>": 0, "\u2581": 1, "a": 2, "\u2581a": 3, "<0xC3>": 4, "<0xB6>": 5}
    tokenizer = Tokenizer(
        models.BPE(vocabulary, [("\u2581", "a")], unk_token="<unk>", byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback()]
    )
    tokenizer.save(str(llama / "tokenizer.json"))
    opened = MlxTokenizer.open(llama, 6)
    assert list(opened.token_bytes) == [b"<unk>", b" ", b"a", b" a", b"\xc3", b"\xb6"]
    tokens = opened.encode("a a\u00f6", add_special=False, parse_special=True)
    assert tokens == [2, 3, 4, 5]
    assert text_of(opened, tokens) == "a a\u00f6"
