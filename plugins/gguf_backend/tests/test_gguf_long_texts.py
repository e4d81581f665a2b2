"""No text ends the process, whichever rule of the library splits it into words."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import llama_cpp as llama
import pytest
from lmx_gguf_backend.library import Model
from lmx_gguf_backend.pieces import GROUPS_DIGITS, MAX_PIECE_CHARS, split, split_numbers
from lmx_gguf_backend.tokenizer import GgufTokenizer

DOCS = Path(__file__).parents[3] / "docs"

KINDS = [
    "default",
    "minicpm5",
    "llama3",
    "deepseek-llm",
    "deepseek-coder",
    "deepseek-v3",
    "youtu",
    "falcon",
    "mpt",
    "starcoder",
    "gpt-2",
    "jais-2",
    "gemma4",
    "sarvam-moe",
    "whitespace",
    "refact",
    "command-r",
    "qwen2",
    "qwen35",
    "stablelm2",
    "olmo",
    "dbrx",
    "smaug-bpe",
    "poro-chat",
    "glm4",
    "viking",
    "jais",
    "tekken",
    "smollm",
    "codeshell",
    "bloom",
    "gpt3-finnish",
    "exaone",
    "exaone-moe",
    "chameleon",
    "minerva-7b",
    "gpt-4o",
    "granite-embed-multi-97m",
    "tiny_aya",
    "superbpe",
    "trillion",
    "granite-docling",
    "bailingmoe",
    "seed-coder",
    "hunyuan",
    "hunyuan-dense",
    "joyai-llm",
    "kimi-k2",
    "grok-2",
    "afmoe",
    "laguna",
    "minimax-m2",
    "solar-open",
    "mellum2",
    "k2-horizon",
]
"""A name of each rule that ``llama_vocab`` of llama.cpp knows, in its order (src/llama-vocab.cpp);
a library that does not know one refuses the file."""

MERGING_KIND = "superbpe"
"""Its tokens are of several words, so any cut but one in a number may part one."""

UNKNOWN_KINDS = 10
"""So many of them a library may not know."""

TOKENS = 2000
NUMBERS = ("11", "111", "12", "123", "23", "231", "31", "312")

ENCODE = """
import json, random, sys
from pathlib import Path
sys.path[:0] = sys.argv[1].split(":")
import llama_cpp as llama
from lmx_gguf_backend import pieces
from lmx_gguf_backend.library import Model
from lmx_gguf_backend.tokenizer import GgufTokenizer

wide = pieces.STACK_BYTES
texts = [(one * int(sys.argv[3]))[: int(sys.argv[3])] for one in json.loads(sys.argv[4])]
letters = sorted(set("".join(texts)))
texts.append("".join(random.Random(7).choices(letters, k=len(texts[0]))))
params = llama.llama_model_default_params()
params.vocab_only = True
for path in map(Path, sys.argv[5:]):
    prose = Path(sys.argv[2]).read_text()
    handle = llama.llama_model_load_from_file(str(path).encode(), params)
    if not handle:
        continue
    tokenizer = GgufTokenizer.of(Model(handle, path))
    for text in texts:
        print(path.stem, ascii(text[:9]), file=sys.stderr, flush=True)
        tokenizer.encode(text, add_special=False, parse_special=True)
    if path.stem == "whitespace":  # the library aborts at two white spaces
        prose = " ".join(prose.split())
    in_pieces = tokenizer.encode(prose, add_special=False, parse_special=True)
    pieces.STACK_BYTES = 1 << 29
    as_one = pieces.with_wide_stack(lambda: tokenizer._native(prose, False, True))
    pieces.STACK_BYTES = wide
    print(path.stem, len(in_pieces), in_pieces == as_one, flush=True)
"""

CHARACTERS = ("a", " ", "\t", "\n", "1", "!", "日", "🙂", "\u0301", "aB")
CHARACTERS_JSON = json.dumps(CHARACTERS)


@pytest.fixture(scope="module")
def vocabularies(demo_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file for each rule: the first tokens of the real model's vocabulary, and
    some of several digits.
    """
    import gguf

    folder = tmp_path_factory.mktemp("vocabularies")
    fields = gguf.GGUFReader(demo_path).fields
    merges = fields["tokenizer.ggml.merges"].contents(slice(TOKENS))
    tokens = fields["tokenizer.ggml.tokens"].contents(slice(TOKENS)) + list(NUMBERS)
    known = [merge for merge in merges if merge.replace(" ", "") in set(tokens)]
    known += [f"{number[:-1]} {number[-1]}" for number in NUMBERS]
    types = fields["tokenizer.ggml.token_type"].contents(slice(TOKENS))
    types += [types[-1]] * len(NUMBERS)
    for kind in KINDS:
        writer = gguf.GGUFWriter(folder / f"{kind}.gguf", "llama")
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(kind)
        writer.add_token_list(tokens)
        writer.add_token_types(types)
        writer.add_token_merges(known)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
    return folder


@pytest.fixture
def prose(tmp_path: Path) -> Path:
    """A text of several pieces with words, tables, code and other scripts."""
    pages = "\n".join(page.read_text() for page in sorted(DOCS.glob("*.md")))
    other = "日本語の文章です。これは、とても長い文です。\n안녕하세요 세계.\n" * 100
    path = tmp_path / "prose.txt"
    path.write_text((other + pages)[: 5 * MAX_PIECE_CHARS // 2])
    return path


def encode(folder: Path, kinds: Iterable[str], chars: int, prose: Path) -> dict[str, bool]:
    """Encode long texts by each rule in a child process; return whether pieces changed nothing."""
    paths = ":".join(one for one in sys.path if one)
    files = [str(folder / f"{kind}.gguf") for kind in kinds]
    done = subprocess.run(
        [sys.executable, "-c", ENCODE, paths, str(prose), str(chars), CHARACTERS_JSON, *files],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"GGML_NO_BACKTRACE": "1"},
    )
    assert done.returncode == 0, f"{done.returncode} {done.stderr[-500:]}"
    answers = map(str.split, done.stdout.splitlines())
    return {kind: same == "True" for kind, _, same in answers}


@pytest.mark.parametrize(
    ("kinds", "chars"),
    [
        # the longest piece, whose match is the deepest, and a second one
        pytest.param(KINDS, MAX_PIECE_CHARS + 1, id="two_pieces"),
        pytest.param(KINDS, 60_000, id="long", marks=pytest.mark.full),
        pytest.param(KINDS, 10_000_000, id="huge", marks=pytest.mark.full),
    ],
)
@pytest.mark.timeout(3000)
def test_equal_characters_end_no_process_whatever_splits_them(
    vocabularies: Path, prose: Path, kinds: list[str], chars: int
) -> None:
    same = encode(vocabularies, kinds, chars, prose)
    assert len(same) >= max(1, len(kinds) - UNKNOWN_KINDS)
    assert {kind for kind in same if not same[kind]} <= {MERGING_KIND}


def test_other_types_of_vocabulary(tiny_driver) -> None:
    tokenizer = tiny_driver.engine.tokenizer
    for one in CHARACTERS:
        text = one * 60_000
        tokens = tokenizer.encode(text, add_special=False, parse_special=True)
        spoken = b"".join(tokenizer.token_bytes[token] for token in tokens)
        assert spoken.decode().replace("▁", " ").strip(" ") == text.strip(" ")


def test_a_long_text_has_the_begin_token_once(demo_engine) -> None:
    tokenizer = demo_engine.tokenizer
    long = "word " * MAX_PIECE_CHARS
    plain = tokenizer.encode(long, add_special=False, parse_special=False)
    assert tokenizer.encode(long, add_special=True, parse_special=False) == plain


@pytest.mark.parametrize("kind", sorted(GROUPS_DIGITS))
def test_a_cut_in_a_number_changes_no_token(
    vocabularies: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    params = llama.llama_model_default_params()
    params.vocab_only = True
    path = vocabularies / f"{kind}.gguf"
    handle = llama.llama_model_load_from_file(str(path).encode(), params)
    tokenizer = GgufTokenizer.of(Model(handle, path))
    numbers = [("123" * 900)[:chars] for chars in range(1100, 1103)]
    texts = [number + end for number in numbers for end in ("", " m", "²")]
    texts.append(f"at {'1' * 1501}, {'123' * 400}{'x' * 1100}{'1' * 1000}")
    cut = [tokenizer.encode(text, add_special=False, parse_special=True) for text in texts]
    monkeypatch.setattr("lmx_gguf_backend.tokenizer.GROUPS_DIGITS", frozenset())
    whole = [tokenizer.encode(text, add_special=False, parse_special=True) for text in texts]
    assert cut == whole
    assert len(whole[0]) < 1100, "there are tokens of several digits"


def test_the_pieces_of_numbers_are_the_text_and_bounded() -> None:
    for text in ("", "7" * 998, "7" * 999, "7" * 1000, "a" * 5000, f"a{'7' * 4321}b{'8' * 2997}"):
        pieces = list(split_numbers(text))
        assert "".join(pieces) == text
        assert max(len(run) for piece in pieces for run in re.split("[^0-9]", piece)) <= 999


def test_pieces_are_the_text_and_bounded() -> None:
    for text in ("", "word " * 99_999, "x" * 99_999, "x\n\n" * 50_000):
        pieces = list(split(text, ()))
        assert "".join(pieces) == text
        assert max(map(len, pieces)) <= MAX_PIECE_CHARS


def test_a_cut_leaves_special_texts_whole() -> None:
    mark = "<|im_end|>"
    for lead in range(MAX_PIECE_CHARS - len(mark) - 1, MAX_PIECE_CHARS + 1):
        pieces = list(split("x" * lead + mark + "y" * MAX_PIECE_CHARS, (mark,)))
        assert sum(mark in piece for piece in pieces) == 1
