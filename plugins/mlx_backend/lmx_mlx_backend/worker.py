"""The worker's side of the MLX backend: opens engines."""

from __future__ import annotations

import mlx.core as mx

from lmx_kernel.engine import DraftRows, Engine, ProgressCallback
from lmx_kernel.engine.drafting import Drafting
from lmx_kernel.engine.numerics import Numerics
from lmx_kernel.engine.step_costs import StepCosts
from lmx_kernel.errors import ModelUnusableError
from lmx_kernel.hookspecs import hookimpl
from lmx_kernel.types import EngineLimits, EngineSpec
from lmx_mlx_backend import caches
from lmx_mlx_backend.cells import Cells, CellStore
from lmx_mlx_backend.draft_rows import MlxDraftRows
from lmx_mlx_backend.engine import MlxEngine
from lmx_mlx_backend.fixed_engine import FixedEngine
from lmx_mlx_backend.folder import read_folder
from lmx_mlx_backend.footprint import PADDING_SHARE, Footprint
from lmx_mlx_backend.graph_builder import GraphBuilder
from lmx_mlx_backend.group_steps import GroupSteps
from lmx_mlx_backend.groups import Groups
from lmx_mlx_backend.model import COMPUTE_ERRORS, Model
from lmx_mlx_backend.plain_json import plain_json
from lmx_mlx_backend.prefill_budget import PrefillBudget
from lmx_mlx_backend.prefix import PrefixCache
from lmx_mlx_backend.settings import MlxSettings
from lmx_mlx_backend.states import BlockLayout, identity_of, numbers_of
from lmx_mlx_backend.tokenizer import MlxTokenizer
from lmx_mlx_backend.uniformity import is_uniform
from lmx_mlx_backend.whole_states import WholeLayout

PADDING_COST = 3
"""A byte of padding costs about as much time as this many of weights.

Measured on SmolLM2-135M in float32 on a CPU: 322 MB of padding 159 ms a step, 517 MB of weights 70.
"""


@hookimpl
def lmx_open_engine(spec: EngineSpec, progress: ProgressCallback) -> Engine:
    """Load the model of ``spec`` and return its engine, warmed up.

    :raises ModelUnusableError: its files are damaged or do not fit its architecture.
    """
    settings = MlxSettings(**spec.settings)
    folder, options = read_folder(spec.card.path), spec.options
    on_gpu = _choose_device(settings.device)
    footprint = Footprint.of(folder, options, on_cpu=not on_gpu)
    _limit_memory(footprint, spec.memory_bytes)
    with plain_json(folder.path) as path:
        model = Model.open(path, folder.architecture, as_float32=not on_gpu, progress=progress)
        tokenizer = MlxTokenizer.open(path, model.vocabulary)
    progress(1.0)
    problem = _problem(model, on_gpu=on_gpu)
    if spec.reproducible and not problem:
        return _open_fixed(model, tokenizer, spec, footprint)
    layout, unportable = _layout_of(model)
    return MlxEngine(
        tokenizer=tokenizer,
        limits=_limits(model, spec),
        model=model,
        budget=PrefillBudget(model.row_s),
        store=PrefixCache(footprint.kept_bytes) if model.can_keep else None,
        groups=Groups(
            padding_cells=footprint.shape.weights_bytes
            // (PADDING_COST * max(footprint.token_bytes, 1)),
            spare_cells=options.cache_tokens // PADDING_SHARE,
        ),
        steps=_steps(model, on_gpu=on_gpu),
        numerics=Numerics(identity=numbers_of(folder.architecture), problem=problem),
        layout=layout,
        identity=identity_of(folder.architecture, layout) if layout is not None else "",
        unportable=unportable,
    )


def _steps(model: Model, *, on_gpu: bool) -> GroupSteps:
    costs = StepCosts(model.steps_s)
    return GroupSteps(
        ahead=on_gpu,
        drafting=Drafting(costs, is_padded=True) if model.can_draft else None,
        builder=GraphBuilder() if model.can_keep and not on_gpu else None,
    )


def _layout_of(model: Model) -> tuple[BlockLayout | WholeLayout | None, str]:
    """Return the layout of a model's states, or why they are not understood."""
    if not model.can_keep:
        return None, "its caches cannot be copied"
    try:
        return BlockLayout.of(model.module) or WholeLayout.of(model.module), ""
    except COMPUTE_ERRORS as error:
        return None, f"its caches are not understood: {error}".splitlines()[0]


@hookimpl
def lmx_open_draft_model(spec: EngineSpec, progress: ProgressCallback) -> DraftRows:
    """Load the model of ``spec`` to draft for another one, warmed up.

    :raises ModelUnusableError: its files are damaged, or it cannot take back what it computed.
    """
    folder, options = read_folder(spec.card.path), spec.options
    on_gpu = _choose_device(MlxSettings(**spec.settings).device)
    with plain_json(folder.path) as path:
        model = Model.open(path, folder.architecture, as_float32=not on_gpu, progress=progress)
        token_bytes = MlxTokenizer.open(path, model.vocabulary).token_bytes
    progress(1.0)
    if not (model.can_draft and model.can_batch):
        model.close()
        raise ModelUnusableError(f"{spec.card.id}: not a model that can draft for another")
    return MlxDraftRows(
        token_bytes=token_bytes,
        slots=options.parallel,
        context_length=options.context_length,
        cache_tokens=options.cache_tokens,
        steps_s=model.steps_s,
        model=model,
    )


def _problem(model: Model, *, on_gpu: bool) -> str:
    """Return why answers cannot be reproducible; "" where they can."""
    if on_gpu:
        return "on a GPU, MLX's numbers depend on what else it computes"
    if not (model.can_batch and model.can_draft):
        return "not every layer of this model keeps every token in a cell of its own"
    return ""


def _open_fixed(
    model: Model, tokenizer: MlxTokenizer, spec: EngineSpec, footprint: Footprint
) -> Engine:
    """Return the engine whose numbers depend on nothing; whether they do is tried out."""
    limits, layers = _limits(model, spec), len(caches.new(model.module))
    cells = Cells.of(model.module, layers, limits.max_sequences)
    is_same = is_uniform(cells, model.vocabulary, limits.context_length)
    return FixedEngine(
        tokenizer=tokenizer,
        limits=limits,
        numerics=Numerics(
            identity=f"{numbers_of(spec.card.architecture)} {limits.max_sequences} rows",
            is_reproducible=is_same,
            problem="" if is_same else "MLX computes this model's rows otherwise among others",
        ),
        model=model,
        cells=cells,
        store=CellStore(footprint.kept_bytes),
        budget=PrefillBudget(model.row_s),
    )


def _limits(model: Model, spec: EngineSpec) -> EngineLimits:
    return EngineLimits(
        context_length=spec.options.context_length,
        max_sequences=spec.options.parallel if model.can_batch else 1,
        cache_tokens=spec.options.cache_tokens,
    )


def _choose_device(wanted: str) -> bool:
    """Set the device to compute on; return whether it is a GPU.

    :raises ModelUnusableError: a GPU is wanted and there is none.
    """
    has_gpu = mx.default_device() == mx.Device(mx.gpu) and mx.is_available(mx.gpu)
    if wanted == "gpu" and not has_gpu:
        raise ModelUnusableError("[mlx] device is gpu, and MLX finds none")
    on_gpu = has_gpu and wanted != "cpu"
    mx.set_default_device(mx.gpu if on_gpu else mx.cpu)
    return on_gpu


def _limit_memory(footprint: Footprint, reserved_bytes: int) -> None:
    """Hold MLX to what the ledger holds for it. The limit of wired memory is left as it is."""
    planned = footprint.estimate()
    mx.set_memory_limit(reserved_bytes or planned.total_bytes)
    mx.set_cache_limit(planned.overhead_bytes // 4)
