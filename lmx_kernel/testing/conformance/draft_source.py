"""Tests for sources of drafts, which are used as an author's class::

class TestMySource(DraftSourceChecks):
    kind = staticmethod(my_source)
"""

from __future__ import annotations

import random
from typing import Any, ClassVar

from lmx_kernel.engine.draft_kind import DraftKind
from lmx_kernel.testing.fake_engine import FakeTokenizer

TOKENIZER: Any = FakeTokenizer()
PROMPT = [*b"The quick brown fox jumps over the lazy dog. "]


class DraftSourceChecks:
    """What every source of drafts does.

    :cvar kind: what the entry point names.
    :cvar answer: a text of which it proposes a part.
    """

    kind: ClassVar[DraftKind]
    answer: ClassVar[str] = "The quick brown fox jumps over the lazy dog."

    def test_it_proposes_some_of_the_answer(self) -> None:
        source, right = self.kind(PROMPT, [], TOKENIZER), 0
        answer = [*self.answer.encode()]
        for place in range(1, len(answer)):
            proposal = source.propose(PROMPT + answer[:place], 4)
            right += proposal[:1] == answer[place : place + 1]
        assert right

    def test_it_proposes_no_more_than_it_is_asked_for_and_changes_no_tokens(self) -> None:
        dice = random.Random(1)
        for prompt in ([], [65], PROMPT):
            source, tokens = self.kind(list(prompt), [], TOKENIZER), list(prompt)
            for k in (0, 1, 15):
                tokens += [dice.randrange(256) for _ in range(3)]
                before = list(tokens)
                proposal = source.propose(tokens, k)
                assert tokens == before
                assert len(proposal) <= k
                assert all(isinstance(token, int) for token in proposal)

    def test_sequences_have_sources_of_their_own(self) -> None:
        """What one of them saw is nothing that another proposes."""
        secret = [*b"a secret that nobody else may see"]
        first = self.kind(PROMPT + secret, [], TOKENIZER)
        first.propose(PROMPT + secret + secret[:9], 15)
        second = self.kind(PROMPT, [], TOKENIZER)
        assert secret[9:14] != second.propose(PROMPT + secret[:9], 5)
