"""Compiling grammars to matchers of the library, which compute masks for one vocabulary."""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import TYPE_CHECKING

from attrs import frozen

from lmx_constraints.alternatives import Stage
from lmx_constraints.trial import first_line, limits
from lmx_kernel.engine import Tokenizer
from lmx_kernel.errors import InternalError, InvalidSchemaError

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

MAX_GRAMMARS = 64
"""Compiled grammars that are kept for each model; each takes a few hundred kilobytes."""


@frozen
class CompiledStage:
    """A stage and its matcher, of which each candidate takes a copy."""

    stage: Stage
    matcher: LLMatcher


class StageCompiler:
    """Compiles the stages of one model's answers. Its calls may come from any thread.

    The vocabulary in the library's form is made when it is first needed: that takes about 3 us a
    token.

    :param format_name: of the model's chat format, for errors.
    """

    def __init__(self, tokenizer: Tokenizer, format_name: str) -> None:
        self._tokenizer = tokenizer
        self._format_name = format_name
        self._lock = threading.Lock()
        self._vocabulary: LLTokenizer | None = None
        self._matcher = lru_cache(MAX_GRAMMARS)(self._compile)

    def compile(self, stage: Stage) -> CompiledStage:
        """Return a stage with its matcher, which stands behind the stage's prefix.

        :raises InvalidSchemaError: its grammar cannot be compiled.
        :raises InternalError: its grammar does not allow its prefix: the chat format contradicts
            itself.
        """
        matcher = self._matcher(stage.grammar)
        if stage.prefix:
            matcher = matcher.deep_copy()
            if not matcher.consume_tokens(list(stage.prefix)):
                raise InternalError(
                    f"the format {self._format_name} names a start of calls that its grammar of "
                    "calls does not allow"
                )
        return CompiledStage(stage, matcher)

    def _compile(self, grammar: str) -> LLMatcher:
        from llguidance import LLMatcher  # noqa: PLC0415 - takes 60 ms, and few requests need it

        matcher = LLMatcher(self._library_vocabulary(), grammar, log_level=0, limits=limits())
        if not matcher.is_error():
            matcher.compute_bitmask()  # some faults show no earlier
        if matcher.is_error():
            raise InvalidSchemaError(first_line(matcher.get_error()))
        return matcher

    def _library_vocabulary(self) -> LLTokenizer:
        from llguidance import LLTokenizer, TokenizerWrapper  # noqa: PLC0415 - as above

        with self._lock:
            if self._vocabulary is None:
                wrapper = TokenizerWrapper(_Vocabulary(self._tokenizer))
                size, ends = len(self._tokenizer.token_bytes), sorted(self._tokenizer.end_ids)
                self._vocabulary = LLTokenizer(wrapper, n_vocab=size, eos_token=ends)
            return self._vocabulary


class _Vocabulary:
    """A tokenizer with the attributes that llguidance reads."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokens = tokenizer.token_bytes
        self.special_token_ids = sorted(tokenizer.special_ids | tokenizer.end_ids)
        self.bos_token_id = None
        self.eos_token_id = min(tokenizer.end_ids, default=0)
        self._tokenizer = tokenizer

    def __call__(self, text: bytes) -> list[int]:
        plain = text.decode(errors="replace")
        return self._tokenizer.encode(plain, add_special=False, parse_special=False)
