"""Text to tokens and back, by the model's own vocabulary."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator, Sequence
from typing import Any

import llama_cpp as llama
from attrs import define

from lmx_gguf_backend.library import Model
from lmx_gguf_backend.pieces import (
    GROUPS_DIGITS,
    SHORT_CHARS,
    split,
    split_numbers,
    with_wide_stack,
)
from lmx_kernel.errors import InvalidRequestError

MAX_TEXT_BYTES = 1 << 28
HIDDEN = llama.LLAMA_TOKEN_ATTR_CONTROL | llama.LLAMA_TOKEN_ATTR_UNKNOWN
WHOLE = HIDDEN | llama.LLAMA_TOKEN_ATTR_USER_DEFINED
SPACES = re.compile(r"\s+")


@define(eq=False)
class GgufTokenizer:
    """A vocabulary; its tables are made once, and calls keep no state, so any thread may call.

    :param whole_texts: the texts of tokens that are found in a text before it is split into words.
    :param pre: the name of the rule that splits it (``tokenizer.ggml.pre``).
    """

    vocabulary: int
    token_bytes: Sequence[bytes]
    special_ids: frozenset[int]
    end_ids: frozenset[int]
    chat_template: str | None
    template_texts: dict[str, str]
    whole_texts: tuple[str, ...]
    pre: str

    @classmethod
    def of(cls, model: Model) -> GgufTokenizer:
        """Return the tokenizer of a loaded model."""
        vocabulary = model.vocabulary
        ids = range(llama.llama_vocab_n_tokens(vocabulary))
        pieces = tuple(_piece(vocabulary, token) for token in ids)
        return cls(
            vocabulary=vocabulary,
            token_bytes=pieces,
            special_ids=frozenset(
                token for token in ids if _attributes(vocabulary, token) & HIDDEN
            ),
            end_ids=_end_ids(vocabulary, ids),
            chat_template=model.metadata("tokenizer.chat_template"),
            template_texts=_template_texts(vocabulary, pieces),
            whole_texts=_whole_texts(vocabulary, pieces),
            pre=model.metadata("tokenizer.ggml.pre") or "",
        )

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return the tokens of ``text``.

        :raises InvalidRequestError: the text is longer than any context.
        """
        if len(text) > MAX_TEXT_BYTES:
            raise InvalidRequestError("the text is too long")
        if self.pre == "whitespace":  # two white spaces in a row would abort the library
            text = SPACES.sub(" ", text)
        if len(text) <= SHORT_CHARS:
            return self._native(text, add_special, parse_special)
        return with_wide_stack(lambda: self._encode_long(text, add_special, parse_special))

    def _encode_long(self, text: str, add_special: bool, parse_special: bool) -> list[int]:
        # only this type splits by regular expressions; the others add a space before each text
        is_split = llama.llama_vocab_type(self.vocabulary) == llama.LLAMA_VOCAB_TYPE_BPE
        pieces = list(self._pieces(text)) if is_split else [text]
        if len(pieces) == 1:
            return self._native(text, add_special, parse_special)
        tokens = []
        if add_special and llama.llama_vocab_get_add_bos(self.vocabulary):
            tokens.append(llama.llama_vocab_bos(self.vocabulary))
        for piece in pieces:
            tokens += self._native(piece, False, parse_special)
        if add_special and llama.llama_vocab_get_add_eos(self.vocabulary):
            tokens.append(llama.llama_vocab_eos(self.vocabulary))
        return tokens

    def _pieces(self, text: str) -> Iterator[str]:
        for part in split_numbers(text) if self.pre in GROUPS_DIGITS else (text,):
            yield from split(part, self.whole_texts)

    def _native(self, text: str, add_special: bool, parse_special: bool) -> list[int]:
        data = text.encode("utf-8", errors="replace")
        size = len(data) + 8
        while True:
            buffer = (llama.llama_token * size)()
            count = llama.llama_tokenize(
                self.vocabulary, data, len(data), buffer, size, add_special, parse_special
            )
            if count >= 0:
                return buffer[:count]
            if -count <= size:
                raise InvalidRequestError("the text cannot be read as tokens")
            size = -count


def _piece(vocabulary: int, token: int) -> bytes:
    size = 64
    while True:
        buffer = ctypes.create_string_buffer(size)
        length = llama.llama_token_to_piece(vocabulary, token, buffer, size, 0, True)
        if length >= 0:
            return buffer.raw[:length]
        size = -length


def _attributes(vocabulary: int, token: int) -> int:
    return int(llama.llama_vocab_get_attr(vocabulary, token))


def _end_ids(vocabulary: int, ids: range) -> frozenset[int]:
    """Return the ids that end an answer.

    The library also counts normal tokens whose text looks like an end (qwen2's ``</s>``), and the
    separators between files of a repository; a chat model means neither as its end.
    """
    named = {llama.llama_vocab_eos(vocabulary), llama.llama_vocab_eot(vocabulary)}
    separators = {llama.llama_vocab_fim_rep(vocabulary), llama.llama_vocab_fim_sep(vocabulary)}
    ends = {token for token in ids if llama.llama_vocab_is_eog(vocabulary, token)}
    control = {token for token in ends if _attributes(vocabulary, token) & HIDDEN}
    return frozenset((control - separators) | (ends & named))


def _template_texts(vocabulary: int, pieces: Sequence[bytes]) -> dict[str, str]:
    names: dict[str, Any] = {
        "bos_token": llama.llama_vocab_bos(vocabulary),
        "eos_token": llama.llama_vocab_eos(vocabulary),
        "pad_token": llama.llama_vocab_pad(vocabulary),
    }
    return {
        name: pieces[token].decode("utf-8", errors="replace")
        for name, token in names.items()
        if 0 <= token < len(pieces)
    }


def _whole_texts(vocabulary: int, pieces: Sequence[bytes]) -> tuple[str, ...]:
    whole = (pieces[id_] for id_ in range(len(pieces)) if _attributes(vocabulary, id_) & WHOLE)
    return tuple(piece.decode("utf-8", errors="replace") for piece in whole if piece)
