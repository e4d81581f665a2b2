"""What the answers of a load depend on, and whether they are promised to be the same each time."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path

from attrs import frozen

from lmx_kernel.engine.numerics import HasNumerics, Numerics
from lmx_kernel.engine.protocol import Engine
from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.models.request_defaults import REPRODUCIBLE
from lmx_kernel.types import EngineSpec, GenerationRequest

DIGEST_BYTES = 6
SAMPLES, SAMPLE_BYTES = 16, 1 << 16
"""Read of each file, from its beginning to its end: all of it may be hundreds of gigabytes."""


@frozen(kw_only=True)
class Promise:
    """What is promised for all answers of a load.

    :param is_reproducible: an answer depends on nothing but the request and the fingerprint.
    :param problem: why that was wanted in vain; "" where it was not.
    :param fingerprint: stands for everything that answers depend on beside the request; "" where
        that cannot be told. It ends with ``_reproducible``, or with ``_not_reproducible`` where
        that was wanted in vain.
    :param warning: what the owner should know; "" for nothing.
    """

    is_reproducible: bool = False
    problem: str = ""
    fingerprint: str = ""
    warning: str = ""

    @classmethod
    def of(cls, spec: EngineSpec, engine: Engine) -> Promise:
        """Return the promise for a model that was loaded by ``spec``."""
        known = isinstance(engine, HasNumerics)
        numerics = engine.numerics if isinstance(engine, HasNumerics) else Numerics(identity="")
        kept = spec.reproducible and numerics.is_reproducible
        problem = "" if kept or not spec.reproducible else numerics.problem or CANNOT
        warning = f"answers are not reproducible: {problem}" if problem else ""
        facts = (version("lmx-kernel"), spec.card.backend, known, numerics.identity,
                 spec.chat_template, spec.chat_format)  # fmt: skip
        try:
            digest = _digest(repr(facts), spec.card.files)
        except OSError as error:
            return cls(is_reproducible=kept, problem=problem, warning=f"no fingerprint: {error}")
        ending = "_not_reproducible" if problem else "_reproducible" if kept else ""
        return cls(
            is_reproducible=kept,
            problem=problem,
            fingerprint=f"fp_{digest}{ending}",
            warning=warning,
        )

    def check(self, request: GenerationRequest) -> None:
        """Refuse what is not promised.

        :raises InvalidRequestError: the request must be reproducible.
        """
        if request.reproducible and not self.is_reproducible:
            why = self.problem or "the model was loaded without reproducible = true; load it again"
            raise InvalidRequestError(f"{REPRODUCIBLE}: {why}", param=REPRODUCIBLE)


CANNOT = "the model's engine cannot promise it"


def _digest(facts: str, files: tuple[Path, ...]) -> str:
    digest = hashlib.blake2b(facts.encode(), digest_size=DIGEST_BYTES)
    for file in sorted(files):
        size = file.stat().st_size
        digest.update(size.to_bytes(8, "little"))
        with file.open("rb") as opened:
            for number in range(SAMPLES):
                opened.seek(max(size - SAMPLE_BYTES, 0) * number // (SAMPLES - 1))
                digest.update(opened.read(SAMPLE_BYTES))
    return digest.hexdigest()
