"""Text to tokens and back, from a folder's ``tokenizer.json``."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import define
from tokenizers import Tokenizer

from lmx_kernel.errors import InvalidRequestError, ModelUnusableError
from lmx_mlx_backend.folder import chat_template, read_json

MAX_TEXT_BYTES = 1 << 28
BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
SPACE = "\u2581"
"""How vocabularies of the sentencepiece kind write a space."""

END_TEXTS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<turn|>", "<|end|>",
             "<|endoftext|>", "<|end_of_text|>", "<|eot|>", "<|return|>")  # fmt: skip
"""Control tokens that end an answer wherever they are in a vocabulary."""

TEXT_NAMES = ("bos_token", "eos_token", "pad_token", "unk_token")


@define(eq=False)
class MlxTokenizer:
    """A vocabulary; calls keep no state, so any thread may call.

    :param reader: reads the text of control tokens as those tokens.
    :param plain: reads it as text.
    :param begin: the begin token, and whether it stands before a text; None leaves that to
        ``tokenizer.json``.
    """

    reader: Tokenizer
    plain: Tokenizer
    token_bytes: Sequence[bytes]
    special_ids: frozenset[int]
    end_ids: frozenset[int]
    chat_template: str | None
    template_texts: dict[str, str]
    begin: tuple[int, bool] | None

    @classmethod
    def open(cls, folder: Path, width: int) -> MlxTokenizer:
        """Return the tokenizer of the model in ``folder``.

        :param width: of the model's logits: ids above are not its own, missing ones have no text.
        :raises ModelUnusableError: ``tokenizer.json`` is damaged.
        """
        reader, plain = _read(folder), _read(folder)
        plain.encode_special_tokens = True
        texts = _texts(folder)
        added = reader.get_added_tokens_decoder()
        hidden = {token for token, entry in added.items() if entry.special and token < width}
        pieces = _pieces(reader, width)
        return cls(
            reader=reader,
            plain=plain,
            token_bytes=pieces,
            special_ids=frozenset(hidden | {token for token in range(width) if not pieces[token]}),
            end_ids=frozenset(_end_ids(folder, reader, hidden, texts.get("eos_token"))),
            chat_template=chat_template(folder),
            template_texts=texts,
            begin=_begin(folder, reader, texts.get("bos_token")),
        )

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return the tokens of ``text``.

        :raises InvalidRequestError: the text is longer than any context.
        """
        if len(text) > MAX_TEXT_BYTES:
            raise InvalidRequestError("the text is too long")
        clean = text.encode("utf-8", errors="replace").decode("utf-8")
        tokenizer = self.reader if parse_special else self.plain
        ids: list[int] = tokenizer.encode(clean, add_special_tokens=add_special).ids
        if add_special and self.begin is not None:
            token, is_wanted = self.begin
            rest = ids[1:] if ids[:1] == [token] else ids
            return [token, *rest] if is_wanted else rest
        return ids


def _read(folder: Path) -> Tokenizer:
    """Return the library's tokenizer, which cuts and fills nothing.

    :raises ModelUnusableError: damaged.
    """
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the library raises nothing narrower
        raise ModelUnusableError(f"tokenizer.json: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _pieces(tokenizer: Tokenizer, width: int) -> tuple[bytes, ...]:
    """Return the bytes of each token; added ones stand for themselves."""
    added = tokenizer.get_added_tokens_decoder()
    to_bytes = _byte_level if _is_byte_level(tokenizer) else _spaced

    def piece(token: int) -> bytes:
        if token in added:
            return added[token].content.encode()
        return to_bytes(tokenizer.id_to_token(token) or "")

    return tuple(map(piece, range(width)))


def _is_byte_level(tokenizer: Tokenizer) -> bool:
    parts = json.loads(tokenizer.to_str())
    return any('"ByteLevel"' in json.dumps(parts[name]) for name in ("decoder", "pre_tokenizer"))


def _byte_level(text: str) -> bytes:
    is_mapped = all(char in BYTE_OF for char in text)
    return bytes(BYTE_OF[char] for char in text) if is_mapped else text.encode()


def _spaced(text: str) -> bytes:
    found = BYTE.fullmatch(text)
    return bytes([int(found[1], 16)]) if found else text.replace(SPACE, " ").encode()


def _byte_table() -> dict[str, int]:
    """GPT-2's way to write bytes: printable ones as themselves, the others as code points from 256
    (https://github.com/openai/gpt-2, encoder.py, bytes_to_unicode)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(256 + index): byte for index, byte in enumerate(others)}


BYTE_OF = _byte_table()


def _texts(folder: Path) -> dict[str, str]:
    """Return the texts of the special tokens that have a name."""
    found: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            found |= read_json(folder / name)
    texts = {name: _text(found.get(name)) for name in TEXT_NAMES}
    return {name: text for name, text in texts.items() if text is not None}


def _begin(folder: Path, reader: Tokenizer, text: str | None) -> tuple[int, bool] | None:
    """Return the begin token and whether ``add_bos_token`` wants it; None if the key is absent."""
    path = folder / "tokenizer_config.json"
    is_wanted = read_json(path).get("add_bos_token") if path.is_file() else None
    token = None if text is None else reader.token_to_id(text)
    return (token, is_wanted) if isinstance(is_wanted, bool) and token is not None else None


def _text(value: object) -> str | None:
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _end_ids(folder: Path, reader: Tokenizer, hidden: set[int], eos: str | None) -> set[int]:
    """Return the ids that end an answer: those that a config names, and control tokens known to."""
    ids: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        if (folder / name).is_file():
            config = read_json(folder / name)
            nested = config.get("text_config")
            ids |= _ids(config.get("eos_token_id"))
            ids |= _ids(nested.get("eos_token_id")) if isinstance(nested, dict) else set()
    known = {reader.token_to_id(text) for text in END_TEXTS}
    named = {reader.token_to_id(eos)} if eos is not None else set()
    return {token for token in ids | named | (known & hidden) if token is not None}


def _ids(value: object) -> set[int]:
    items = value if isinstance(value, list) else [value]
    return {item for item in items if type(item) is int}
