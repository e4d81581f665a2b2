"""A worker process: one model, one engine. Started by the kernel, never by hand.

The process lives exactly as long as its channel: it ends when the kernel closes it or dies.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import traceback

import pluggy

from lmx_kernel.engine.draft_model import DraftModel
from lmx_kernel.engine.draft_rows import DraftRows
from lmx_kernel.engine.protocol import Engine
from lmx_kernel.errors import LmxError, ModelUnusableError
from lmx_kernel.hookspecs import PROJECT, WORKER_GROUP, WorkerSpecs
from lmx_kernel.plugins.entry_points import entry_points
from lmx_kernel.prefixes.keys import model_identity
from lmx_kernel.prefixes.store import PrefixStore
from lmx_kernel.processes.lifeline import die_with_parent, exit_if_closed
from lmx_kernel.processes.oom_score import raise_oom_score
from lmx_kernel.processes.thread_stacks import set_thread_stacks
from lmx_kernel.types import EngineSpec
from lmx_kernel.worker import messages as wire
from lmx_kernel.worker.channel import Channel
from lmx_kernel.worker.draft_sources import DraftSources, open_draft_model
from lmx_kernel.worker.loop import Loop
from lmx_kernel.worker.preparer import ChatChoice
from lmx_kernel.worker.promise import Promise


def main() -> None:
    """Serve the model that the first message names."""
    # A terminal's Ctrl-C and a service manager's TERM reach the whole group; the kernel drains.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    die_with_parent()
    set_thread_stacks()
    exit_if_closed(sys.stdin.fileno())  # or it would load a model for nobody
    raise_oom_score()
    channel = Channel.from_stdin()
    first = channel.receive()
    if isinstance(first, wire.Measure):
        channel.send(wire.Measured(_measure(first.spec)))
    elif isinstance(first, wire.Open):
        _serve(channel, first.spec)


def _serve(channel: Channel, spec: EngineSpec) -> None:
    try:
        chat = ChatChoice(spec.chat_template, spec.chat_format, spec.card.architecture)
        chat.check()
        engine = _open(channel, spec)
        store = _open_store(channel, spec, engine)
        promise = Promise.of(spec, engine)
        if promise.warning:
            channel.send(wire.Warned(promise.warning))
        drafts = DraftSources(engine, spec.drafts, _open_draft_model(channel, spec, engine))
        loop = Loop(engine, channel, spec.constraints, chat, store, drafts, promise)
    except LmxError as error:
        _refuse(channel, error.code, error.message)
    # The plugin's code may fail in any way, including sys.exit(); the kernel wants to know which.
    except (Exception, SystemExit) as error:  # noqa: BLE001
        traceback.print_exc()
        cause = f"{type(error).__name__}: {error}"
        _refuse(channel, ModelUnusableError.code, f"backend {spec.card.backend}: {cause}")
    threading.Thread(target=_read, args=(channel, loop), daemon=True).start()
    channel.send(wire.Opened(loop.limits))
    loop.run()


def _open(channel: Channel, spec: EngineSpec) -> Engine:
    def progress(share: float, doing: str = "") -> None:
        channel.send(wire.Loading(share, doing))

    engine: Engine | None = _hooks(spec).lmx_open_engine(spec=spec, progress=progress)
    if engine is None:
        raise ModelUnusableError(f"backend {spec.card.backend} opened no engine")
    return engine


def _open_draft_model(channel: Channel, spec: EngineSpec, engine: Engine) -> DraftModel | None:
    if (draft := spec.draft_model) is None:
        return None

    def progress(share: float, doing: str = "") -> None:
        channel.send(wire.Loading(share, f"{draft.card.id}: {doing or 'loading it to draft'}"))

    rows: DraftRows | None = _hooks(draft).lmx_open_draft_model(spec=draft, progress=progress)
    if rows is None:
        raise ModelUnusableError(f"models of the backend {draft.card.backend} draft for none")
    return open_draft_model(rows, spec, engine.tokenizer)


def _measure(spec: EngineSpec) -> int | None:
    """Return the exact bytes of a load; None where they are not known."""
    own: int | None = _hooks(spec).lmx_measure_memory(spec=spec)
    other = _measure(spec.draft_model) if spec.draft_model is not None else 0
    return None if own is None or other is None else own + other


def _open_store(channel: Channel, spec: EngineSpec, engine: Engine) -> PrefixStore | None:
    """Return where states of the engine are stored; None if they are not."""
    options, states = spec.prefix_store, getattr(engine, "states", None)
    if options is None:
        return None

    def warn(text: str) -> None:
        channel.send(wire.Warned(text))

    if states is None:
        if why := getattr(engine, "unportable", ""):
            warn(f"its prefixes are not kept on disk: {why}")
        return None

    try:
        return PrefixStore.open(
            options.folder,
            spec.card.id,
            model_identity(spec.card.files, f"{spec.card.backend} {states.identity}"),
            limit_bytes=options.limit_bytes,
            ttl_s=options.ttl_s,
            warn=warn,
        )
    except OSError as error:
        warn(f"prefixes are not stored on disk: {error}")
        return None


def _hooks(spec: EngineSpec) -> pluggy.HookRelay:
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(WorkerSpecs)
    manager.register(_engine_module(spec), name=spec.card.backend)
    manager.check_pending()
    return manager.hook


def _engine_module(spec: EngineSpec) -> object:
    if spec.engine_module:
        return importlib.import_module(spec.engine_module)
    name = spec.card.backend
    entries = entry_points(WORKER_GROUP, name)
    if not entries:
        raise ModelUnusableError(
            f"no installed package has an engine for the backend {name}; is its plugin gone?"
        )
    if len(entries) > 1:
        names = " and ".join(sorted(one.dist.name for one in entries if one.dist))
        raise ModelUnusableError(f"{names} both have an engine for the backend {name}")
    return entries[0].load()


def _refuse(channel: Channel, code: str, message: str) -> None:
    channel.send(wire.LoadRefused(code, message))
    sys.stderr.flush()
    os._exit(1)


def _read(channel: Channel, loop: Loop) -> None:
    try:
        while True:
            message = channel.receive()
            if isinstance(message, wire.Ping):
                channel.send(wire.Beat(loop.pulse()))
            if isinstance(message, wire.End):
                loop.close()
                os._exit(0)
            if isinstance(message, wire.Prepare):
                loop.prepare(message)
            elif isinstance(message, wire.Start | wire.Drop | wire.Trim | wire.Ping):
                loop.take(message)
    finally:  # a worker that cannot hear is dead: let the kernel see it
        traceback.print_exc()
        os._exit(70)


if __name__ == "__main__":
    main()
