"""The keywords of ``keywords.toml``, all of them found in one pass over a text."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

from ahocorasick import Automaton
from attrs import define, field

SPACELESS = "\u2e80"  # letters from here on are of scripts that put no spaces between words


@define(eq=False)
class Keyword:
    """A piece of text that says something about a task.

    :ivar begins: it must be the beginning of a word.
    :ivar ends: it must be the end of one.
    """

    length: int
    begins: bool
    ends: bool
    votes: list[tuple[str, float]] = field(factory=list)
    is_code: bool = False
    is_sum: bool = False
    is_language: bool = False


class Keywords:
    """Finds the keywords in a text."""

    def __init__(self, tables: dict[str, Any]) -> None:
        self._automaton = Automaton()
        for entry in tables["votes"]:
            vote = entry["task"], float(entry["votes"])
            for word in entry.get("words", "").split():
                self._keyword(word, is_word=True).votes.append(vote)
            for phrase in entry.get("phrases", ()):
                self._keyword(phrase).votes.append(vote)
        for text in tables["code"]:
            self._keyword(text).is_code = True
        for text in tables["sums"]:
            self._keyword(text).is_sum = True
        for language in tables["languages"].split():
            keyword = self._keyword(language, is_word=True)
            keyword.is_language = True
            keyword.votes.append(("translation", 1.0))
        self._automaton.make_automaton()

    def find(self, text: str) -> Iterator[tuple[int, Keyword]]:
        """Yield where keywords begin, in the order of their ends. ``text`` is in lower case."""
        padded = f"\n{text}\n"
        for last, keyword in self._automaton.iter(padded):
            begin = last - keyword.length  # in text, so one before that in padded
            if keyword.begins and _is_letter(padded[begin]):
                continue
            if keyword.ends and _is_letter(padded[last + 1]):
                continue
            yield begin, keyword

    def _keyword(self, text: str, *, is_word: bool = False) -> Keyword:
        piece = text.removesuffix("*")
        if piece not in self._automaton:
            self._automaton.add_word(piece, Keyword(len(piece), begins=is_word, ends=is_word))
        keyword: Keyword = self._automaton.get(piece)
        keyword.ends &= piece == text
        return keyword


def load_keywords() -> Keywords:
    """Return the keywords that come with this package."""
    text = (files("lmx_router_rules") / "keywords.toml").read_text(encoding="utf-8")
    return Keywords(tomllib.loads(text))


def _is_letter(char: str) -> bool:
    return char.isalpha() and char < SPACELESS
