"""Conversations to tokens: only what the template itself writes is read as control tokens."""

from __future__ import annotations

from lmx_kernel.engine.protocol import Tokenizer
from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.text.control_texts import ControlTexts, make_border
from lmx_kernel.text.formats.protocol import Format
from lmx_kernel.text.template import ChatTemplate
from lmx_kernel.types import ChatPrompt

SAMPLE = "x"
LINE_END = "\n"
MAX_LEAD = 16
SENTENCEPIECE_SPACE = "\u2581".encode()  # in vocabularies that write it as bytes


class ChatEncoder:
    """Encodes the conversations with one model. Its calls may come from any thread."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate, chat_format: Format) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._format = chat_format
        self._controls = ControlTexts(tokenizer)
        self._begin = _begin(tokenizer)
        self._adds_space = self._bytes(self._plain(SAMPLE)) == f" {SAMPLE}".encode()

    def encode(self, prompt: ChatPrompt) -> list[int]:
        """Return the tokens of a conversation, ready for the assistant's turn. They begin with the
        tokenizer's own begin token, where it wants one, whether the template writes it or not.

        :raises InvalidRequestError: as :meth:`ChatTemplate.render`.
        """
        first, *others = self._pieces(prompt)
        tokens = self._plain(first)
        for piece in others:
            tokens += self._continued(piece)
        return tokens if self._begins(tokens) else self._begin + tokens

    def text(self, prompt: ChatPrompt) -> str:
        """Return the text of a conversation, ready for the assistant's turn.

        :raises InvalidRequestError: as :meth:`ChatTemplate.render`.
        """
        return "".join(self._pieces(prompt))

    def _pieces(self, prompt: ChatPrompt) -> list[str]:
        """Return the pieces of the prompt's text that are to be encoded one by one."""
        if not self._controls.may_occur(prompt):
            return [self._render(prompt)]
        border = make_border()
        broken = self._controls.broken_up(prompt, border)
        text = self._render(broken)
        if broken is prompt:
            return [text]
        plain = text.replace(border, "")
        if plain != self._expected(prompt, otherwise=plain):
            # The template reads marks of reasoning in what the assistant said before.
            marks = self._format.parser("").marks
            text = self._render(self._controls.broken_up(prompt, border, spared=marks))
        return text.split(border)

    def _expected(self, prompt: ChatPrompt, otherwise: str) -> str:
        """Return the prompt's text as the template writes it, given control tokens and all;
        ``otherwise`` if it refuses them.
        """
        try:
            return self._render(prompt)
        except InvalidRequestError:
            return otherwise

    def _render(self, prompt: ChatPrompt) -> str:
        return self._template.render(prompt.messages, prompt.tools, prompt.options, self._format)

    # --- tokens ---

    def _continued(self, piece: str) -> list[int]:
        """Return the tokens of a piece that is not the first, without the space that vocabularies
        of the sentencepiece kind put before a text.
        """
        if not self._adds_space or not piece:
            return self._plain(piece)
        tokens = self._plain(LINE_END + piece)
        for count in range(1, len(tokens)):
            if self._bytes(tokens[:count]).lstrip(b" ") == LINE_END.encode():
                return tokens[count:]
        return self._plain(piece)

    def _plain(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special=False, parse_special=True)

    def _bytes(self, tokens: list[int]) -> bytes:
        written = b"".join(self._tokenizer.token_bytes[token] for token in tokens)
        return written.replace(SENTENCEPIECE_SPACE, b" ")

    def _begins(self, tokens: list[int]) -> bool:
        """Return whether the begin token is there already, behind white space at most."""
        if not self._begin:
            return True
        size = len(self._begin)
        starts = (at for at in range(MAX_LEAD) if tokens[at : at + size] == self._begin)
        return any(not self._bytes(tokens[:at]).strip() for at in starts)


def _begin(tokenizer: Tokenizer) -> list[int]:
    """Return the tokens that the tokenizer puts before a text."""
    bare = tokenizer.encode(SAMPLE, add_special=False, parse_special=False)
    whole = tokenizer.encode(SAMPLE, add_special=True, parse_special=False)
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start]
    return []
