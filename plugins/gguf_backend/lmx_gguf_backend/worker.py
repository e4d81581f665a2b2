"""The worker's side of the GGUF backend: opens engines and measures what they take."""

from __future__ import annotations

import re

from lmx_gguf_backend.computation import Computation
from lmx_gguf_backend.context import Context
from lmx_gguf_backend.draft_rows import GgufDraftRows, measure_steps
from lmx_gguf_backend.embedding import EmbeddingEngine
from lmx_gguf_backend.encoder import Encoder
from lmx_gguf_backend.engine import GgufEngine, warm_up
from lmx_gguf_backend.footprint import output_rows, parked_bytes, process_bytes, shape_of
from lmx_gguf_backend.interruption import Interruption
from lmx_gguf_backend.library import LOG, Model, has_gpu, system_info
from lmx_gguf_backend.model_file import read_model
from lmx_gguf_backend.prefix import PrefixCache
from lmx_gguf_backend.settings import GgufSettings
from lmx_gguf_backend.shared_prefixes import SharedPrefixes
from lmx_gguf_backend.states import identity_of, why_unportable
from lmx_gguf_backend.streams import StreamContext, find_least_rows, use_one_kernel
from lmx_gguf_backend.threads import Threads
from lmx_gguf_backend.tokenizer import GgufTokenizer
from lmx_gguf_backend.whole_prefixes import WholePrefixes
from lmx_gguf_backend.window import Window
from lmx_kernel.engine import DraftRows, Engine, ProgressCallback
from lmx_kernel.engine.cores import usable_cores
from lmx_kernel.engine.drafting import Drafting
from lmx_kernel.engine.numerics import Numerics
from lmx_kernel.errors import ModelUnusableError
from lmx_kernel.hookspecs import hookimpl
from lmx_kernel.types import EngineLimits, EngineSpec

LEAST_SLOTS = 4

SIZE = re.compile(r"(?:output buffer size|compute buffer size|: size)\s*=\s*([\d.]+) MiB")
"""The library's lines on what it plans: outputs, computation, cache or recurrent states."""


@hookimpl
def lmx_open_engine(spec: EngineSpec, progress: ProgressCallback) -> Engine:
    """Load the model of ``spec`` and return its engine, warmed up.

    :raises ModelUnusableError: the library refused it, or it neither embeds nor continues text.
    :raises InsufficientMemoryError: its cache could not be allocated.
    """
    settings = GgufSettings(**spec.settings)
    if spec.reproducible:
        use_one_kernel()
    model = Model.open(spec.card.path, settings, progress, as_stored=spec.reproducible)
    open_engine = _open_embedding if _embeds(spec) else _open_continuing
    try:
        return open_engine(model, spec, settings, progress)
    except Exception:
        model.close()
        raise


@hookimpl
def lmx_open_draft_model(spec: EngineSpec, progress: ProgressCallback) -> DraftRows:
    """Load the model of ``spec`` to draft for another one, warmed up.

    :raises ModelUnusableError: the library refused it, or it does not continue text token by token.
    :raises InsufficientMemoryError: its cache could not be allocated.
    """
    settings = GgufSettings(**spec.settings)
    model = Model.open(spec.card.path, settings, progress)
    try:
        if not (model.can_continue and model.can_share):
            raise ModelUnusableError(f"{spec.card.id}: not a model that can draft for another")
        context = Context.open(model, spec.options, settings, settings.threads or usable_cores())
    except Exception:
        model.close()
        raise
    progress(1.0)
    return GgufDraftRows(
        token_bytes=GgufTokenizer.of(model).token_bytes,
        slots=context.parallel,
        context_length=min(spec.options.context_length, context.cells),
        cache_tokens=context.cells,
        steps_s=measure_steps(context),
        model=model,
        context=context,
    )


@hookimpl
def lmx_measure_memory(spec: EngineSpec) -> int | None:
    """Return the bytes that opening ``spec`` takes, from the library's own plan of it.

    The model and the cache are laid out without being allocated, which takes well under a second.
    """
    settings = GgufSettings(**spec.settings)
    kind = Encoder if _embeds(spec) else StreamContext if spec.reproducible else Context
    with LOG.recording() as lines:
        model = Model.open(spec.card.path, settings, measure_only=True, as_stored=spec.reproducible)
        context = kind.open(model, spec.options, settings, threads=1)
    weights_bytes = model.size_bytes
    context.close()
    model.close()
    shape = shape_of(read_model(spec.card.path))
    parked = 0 if _embeds(spec) else parked_bytes(shape, spec.options, settings.cache_type)
    buffers_mib = sum(float(found[1]) for line in lines if (found := SIZE.search(line)))
    return weights_bytes + int(buffers_mib * (1 << 20)) + parked + process_bytes(shape)


def _embeds(spec: EngineSpec) -> bool:
    return "embedding" in spec.card.capabilities


def _open_continuing(
    model: Model, spec: EngineSpec, settings: GgufSettings, progress: ProgressCallback
) -> Engine:
    if not model.can_continue:
        raise ModelUnusableError(f"{spec.card.id}: not a model that continues text")
    kind = StreamContext if spec.reproducible else Context
    threads = settings.threads or usable_cores()
    context = kind.open(model, spec.options, settings, threads)
    numerics = _numerics(model, context, settings, threads)
    tokenizer, (budget, costs) = GgufTokenizer.of(model), warm_up(context)
    prefixes = _prefixes(model, context, spec, settings)
    unportable = _why_unportable(context, prefixes)
    progress(1.0)
    return GgufEngine(
        tokenizer=tokenizer,
        limits=EngineLimits(
            context_length=min(spec.options.context_length, context.cells),
            max_sequences=context.parallel,
            cache_tokens=context.cells,
        ),
        model=model,
        context=context,
        computation=Computation(
            context=context,
            budget=budget,
            costs=costs,
            threads=Threads(settings.threads or usable_cores(), adapts=not has_gpu()),
            interruption=_interruption(model, context),
        ),
        prefixes=prefixes,
        drafting=Drafting(costs, output_rows(context.parallel)) if model.can_share else None,
        identity="" if unportable else identity_of(settings, context.cells),
        unportable=unportable,
        numerics=numerics,
    )


def _interruption(model: Model, context: Context) -> Interruption | None:
    """Return None where a computation cannot be taken back, or consists of several, or a GPU does
    it, which does not ask whether to go on.
    """
    is_one = model.can_share and not isinstance(context, StreamContext)
    return Interruption(context.pulse) if is_one and not has_gpu() else None


def _why_unportable(context: Context, prefixes: SharedPrefixes | WholePrefixes) -> str:
    """Return why states are of no use to another process; "" if they are of use."""
    if isinstance(context, StreamContext) and isinstance(prefixes, SharedPrefixes):
        return "the library copies no part of a slot's own cells"
    return why_unportable(prefixes)


def _numerics(model: Model, context: Context, settings: GgufSettings, threads: int) -> Numerics:
    """Return what the numbers depend on; whether they are reproducible is tried out."""
    identity = f"{identity_of(settings, context.cells)} {system_info()}"
    if not isinstance(context, StreamContext):
        return Numerics(identity=f"{identity} {threads} threads")
    problem = ""
    if has_gpu():
        problem = "llama.cpp was built for a GPU, whose numbers depend on what else it computes"
    elif not find_least_rows(context, can_cut=model.can_share):
        problem = "llama.cpp computes this model's rows otherwise alone than among others"
    return Numerics(identity=f"{identity} own cells", is_reproducible=not problem, problem=problem)


def _open_embedding(
    model: Model, spec: EngineSpec, settings: GgufSettings, progress: ProgressCallback
) -> Engine:
    encoder = Encoder.open(model, spec.options, settings, settings.threads or usable_cores())
    encoder.encode([[0]])  # touches the weights
    progress(1.0)
    parallel, longest = spec.options.parallel, spec.options.context_length
    return EmbeddingEngine(
        tokenizer=GgufTokenizer.of(model),
        limits=EngineLimits(
            context_length=longest, max_sequences=parallel, cache_tokens=parallel * longest
        ),
        model=model,
        encoder=encoder,
    )


def _prefixes(
    model: Model, context: Context, spec: EngineSpec, settings: GgufSettings
) -> SharedPrefixes | WholePrefixes:
    """Return room for prefixes: as many as there may be conversations, or a few more."""
    slots = context.holders[: max(context.parallel, LEAST_SLOTS)]
    shape = shape_of(read_model(spec.card.path))
    budget = parked_bytes(shape, spec.options, settings.cache_type)
    if not model.can_share:
        return WholePrefixes.of(context, budget)
    # a slot's own cells hold the whole context, so nothing in them leaves a window
    is_whole = isinstance(context, StreamContext)
    window = Window() if is_whole else Window.measure(model, context)
    return SharedPrefixes(context, PrefixCache(slots, budget), window)
