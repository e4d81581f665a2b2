"""What a fake model does, read from the JSON file that stands for its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from attrs import field, frozen
from cattrs import Converter

SUFFIX = ".fake.json"


@frozen(kw_only=True)
class FakeModel:
    """The behaviour of a fake model. Every field has a harmless default.

    :ivar tokens_per_s: decode steps a second; 0 is as fast as possible.
    :ivar prefill_tokens_per_s: prompt tokens a second; 0 is as fast as possible.
    :ivar answer_tokens: tokens until it ends by itself; 0 is never.
    :ivar template: its chat template; "" for one that writes roles and contents, None for none.
    :ivar says: it answers with this text, a token a byte, instead of counting.
    :ivar replies: pairs of a text and what it answers to a prompt that has it; where a prompt has
        several of these texts, the one that stands last in it counts.
    :ivar load_s: how long loading takes, with progress all along.
    :ivar load_hang: loading never ends, and reports no progress.
    :ivar long_load_s: loading, or measuring, takes this long in addition, without a report.
    :ivar long_step_s: a decode step takes this long in addition, ``times`` times in all.
    :ivar shows: what is to be seen during both: the engine's pulse, CPU time, memory that becomes
        resident, a device that computes, or nothing.
    :ivar load_error: loading fails with this message.
    :ivar memory_bytes: the estimate.
    :ivar allocate_bytes: what it really takes at load.
    :ivar leak_bytes: memory that it takes in addition with every token.
    :ivar leak_tokens: how many tokens leak, over all processes; 0 is all of them.
    :ivar crash_at: the process aborts when it has made this many tokens; 0 is never.
    :ivar hang_at: the process stops itself (SIGSTOP) when it has made this many tokens; 0 is never.
    :ivar times: how often it crashes or hangs in all, over all processes.
    :ivar sampling: what its maker wrote of sampling, by our names.
    :ivar embeds: it makes embeddings instead of answers; each counts as a token.
    :ivar poison: a prompt with this text crashes the process.
    :ivar poison_in: where it does: when it is prepared, in prefill, or at its first token (decode).
    :ivar sour: a prompt with this text fails alone, at its third token.
    :ivar checks_drafts: it computes drafts, which cost it nothing.
    :ivar vocabulary: models of the same one may draft for each other; a draft model counts on.
    :ivar shares_prefixes: what it computed for a prompt serves later ones of the same cache space.
    :ivar irreproducible: why its answers are not reproducible where they should be; "" if they are.
    :ivar portable: its states outlive the worker, where prefixes are shared.
    :ivar whole: they cannot be cut, as those of recurrent layers: a prompt goes on from near the
        end of another, or from the end of its answer.
    """

    context_length: int = 4096
    tokens_per_s: float = 0.0
    prefill_tokens_per_s: float = 0.0
    answer_tokens: int = 0
    template: str | None = ""
    says: str = ""
    replies: tuple[tuple[str, str], ...] = ()
    load_s: float = 0.0
    load_hang: bool = False
    long_load_s: float = 0.0
    long_step_s: float = 0.0
    shows: Literal["pulse", "cpu", "memory", "device", "nothing"] = "nothing"
    load_error: str = ""
    memory_bytes: int = 1024 * 1024
    allocate_bytes: int = 0
    leak_bytes: int = 0
    leak_tokens: int = 0
    crash_at: int = 0
    hang_at: int = 0
    times: int = 1
    sampling: dict[str, float] = field(factory=dict)
    embeds: bool = False
    poison: str = ""
    poison_in: Literal["prepare", "prefill", "decode"] = "decode"
    sour: str = ""
    checks_drafts: bool = False
    vocabulary: str = ""
    shares_prefixes: bool = False
    irreproducible: str = ""
    portable: bool = False
    whole: bool = False

    @classmethod
    def read(cls, path: Path) -> FakeModel:
        """Read a script.

        :raises Exception: the file is not a script; the message says why.
        """
        return Converter(forbid_extra_keys=True).structure(json.loads(path.read_text()), cls)

    def says_to(self, prompt: str) -> str:
        """Return what it answers to a prompt; "" to count."""
        found = [(prompt.rfind(text), reply) for text, reply in self.replies]
        place, reply = max(found, default=(-1, ""))
        return self.says if place < 0 else reply


def use_up(path: Path, times: int) -> bool:
    """Return whether a fault that may happen ``times`` times is still due, and count it."""
    tally = path.with_suffix(".tally")
    done = tally.stat().st_size if tally.exists() else 0
    if done >= times:
        return False
    with tally.open("ab") as file:
        file.write(b"x")
    return True
