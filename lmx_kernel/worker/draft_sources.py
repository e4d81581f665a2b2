"""Where the drafts of a worker's sequences come from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from collections.abc import Sequence as Seq
from functools import partial

from attrs import define, field, frozen

from lmx_kernel.engine.draft_kind import DraftKind
from lmx_kernel.engine.draft_model import DraftModel, ModelDrafts
from lmx_kernel.engine.draft_rows import DraftRows
from lmx_kernel.engine.drafts import COPY, CopySource, DraftSource
from lmx_kernel.engine.protocol import Engine, ExactDrafts, Tokenizer
from lmx_kernel.errors import ModelUnusableError
from lmx_kernel.hookspecs import DRAFT_GROUP
from lmx_kernel.plugins.entry_points import entry_points
from lmx_kernel.types import EngineSpec, GenerationRequest, Sampling
from lmx_kernel.worker.preparer import Prepared

log = logging.getLogger("lmx.drafts")  # the standard library's: workers import no structlog


@define(eq=False)
class DraftSources:
    """Gives each sequence its sources of drafts.

    :param engine: that checks them.
    :param names: of the sources that the owner of the model wants, see
        :class:`~lmx_kernel.types.EngineSpec`.
    :param model: the draft model that is loaded; None for none.
    """

    _engine: Engine
    _names: Collection[str] | None = None
    _model: DraftModel | None = None
    _kinds: dict[str, DraftKind] = field(init=False)
    _open: dict[int, ModelDrafts] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        names = self._names
        if names is None:  # the owner leaves it to the engine, and that to the client
            is_exact = isinstance(self._engine, ExactDrafts) and self._engine.exact_drafts
            names = (COPY,) if is_exact else ()
        self._kinds = {name: _kind(name) for name in names if not self._is_model(name)}

    def source(self, prepared: Prepared) -> DraftSource | None:
        """Return where drafts of a candidate come from that cost nothing; None for nowhere."""
        kinds = self._kinds
        if self._names is None and prepared.prediction:
            kinds = {COPY: _copy}
        given = prepared.tokens, prepared.prediction, self._engine.tokenizer
        made = [Guarded(name, partial(kind, *given)) for name, kind in kinds.items()]
        return FirstOf(made) if made else None

    def model_drafts(
        self, sequence_id: int, request: GenerationRequest, sampling: Sampling, answer_start: int
    ) -> ModelDrafts | None:
        """Return the drafts by a model for a sequence; None where no model drafts for it.

        :param answer_start: place of the answer's first token among the sequence's.
        """
        model = self._model
        if model is None:
            return None
        if request.draft_model != model.name and (
            request.draft_model or model.name not in (self._names or ())
        ):
            return None
        drafts = ModelDrafts(model, sampling, answer_start, request.cache_space)
        self._open[sequence_id] = drafts
        return drafts

    def end(self, sequence_id: int) -> None:
        """A sequence is over; one that has no draft model is ignored."""
        drafts = self._open.pop(sequence_id, None)
        if drafts is not None:
            drafts.close()

    def trim(self) -> None:
        """Free what only serves later requests."""
        if self._model is not None:
            self._model.trim()

    def _is_model(self, name: str) -> bool:
        return self._model is not None and name == self._model.name


class Guarded:
    """A source of a plugin, or LMX's own: one that fails says nothing any more."""

    def __init__(self, name: str, make: Callable[[], DraftSource]) -> None:
        self._name = name
        self._source: DraftSource | None = None
        try:
            self._source = make()
        except Exception:  # a plugin's code may raise anything
            log.exception("the source of drafts %s failed", name)

    def propose(self, tokens: Seq[int], k: int) -> list[int]:
        """Return what the source proposes; nothing once it failed."""
        if self._source is None:
            return []
        try:
            return [int(token) for token in self._source.propose(tokens, k)][:k]
        except Exception:  # a plugin's code may raise anything
            log.exception("the source of drafts %s failed", self._name)
            self._source = None
            return []


@frozen
class FirstOf:
    """Several sources: the first that proposes anything counts."""

    _sources: Seq[DraftSource]

    def propose(self, tokens: Seq[int], k: int) -> list[int]:
        """Ask all, since each has to follow the text."""
        proposals = [source.propose(tokens, k) for source in self._sources]
        return next((proposal for proposal in proposals if proposal), [])


def open_draft_model(rows: DraftRows, spec: EngineSpec, tokenizer: Tokenizer) -> DraftModel:
    """Return the draft model of ``spec``, whose tokens mean the same to the model.

    :raises ModelUnusableError: they do not.
    """
    from lmx_kernel.engine.numpy_sampler import Sampler  # noqa: PLC0415 - numpy takes long

    assert spec.draft_model is not None
    name, mine, theirs = spec.draft_model.card.id, tokenizer.token_bytes, rows.token_bytes
    same = min(len(mine), len(theirs))  # one of the two may be padded
    if list(mine[:same]) != list(theirs[:same]):
        rows.close()
        raise ModelUnusableError(f"{name} cannot draft for {spec.card.id}: other vocabulary")
    return DraftModel(name, rows, Sampler)


def _copy(prompt: Seq[int], prediction: Seq[int], tokenizer: Tokenizer) -> DraftSource:
    return CopySource(prompt, prediction)


def _kind(name: str) -> DraftKind:
    """Return the source of a plugin.

    :raises ModelUnusableError: no plugin offers it any more, or it cannot be imported.
    """
    if name == COPY:
        return _copy
    for entry in entry_points(DRAFT_GROUP, name):
        try:
            kind: DraftKind = entry.load()
        except Exception as error:  # a plugin's code may raise anything
            raise ModelUnusableError(f"drafts: {name} cannot be imported: {error}") from error
        return kind
    raise ModelUnusableError(f"drafts: there is no source called {name}")
