"""Engines of a small vocabulary; the test modules import ``mask_driver`` from this folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from lmx_constraints.engine import GrammarEngine

from lmx_kernel.text.formats import PlainFormat

sys.path.append(str(Path(__file__).parent))

from mask_driver import TOKENIZER


@pytest.fixture(scope="module")
def engine():
    """Return the engine of a model with this format."""
    made = {}

    def make(chat_format, tokenizer=TOKENIZER):
        key = repr((type(chat_format), vars(chat_format), type(tokenizer)))
        return made.setdefault(key, GrammarEngine(tokenizer, chat_format))

    yield make
    for one in made.values():
        one.close()


@pytest.fixture
def plain(engine):
    return engine(PlainFormat())
