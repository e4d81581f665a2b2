"""``lms ls``, ``ps``, ``load``, ``unload`` and ``get``."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Annotated, Any

from cyclopts import Parameter
from rich.table import Table

from lmx_kernel.cli.client import Client
from lmx_kernel.cli.progress import follow_job
from lmx_kernel.cli.terminal import AsJson, Flag, console, given, print_error, print_json
from lmx_kernel.errors import InvalidRequestError, ModelNotFoundError
from lmx_kernel.memory.sizes import format_bytes
from lmx_lmstudio_api.lms.models_here import downloaded, loaded
from lmx_lmstudio_api.lms.output import NORMAL, Output
from lmx_lmstudio_api.model_facts import EMBEDDING
from lmx_lmstudio_api.model_info import LLM


def ls(
    *, llm: Flag = False, embedding: Flag = False, json: AsJson = False, output: Output = NORMAL
) -> None:
    """List the models on disk.

    Parameters
    ----------
    llm
        Only those that write text.
    embedding
        Only those that make embeddings.
    """
    wanted = {kind for kind, is_wanted in ((LLM, llm), (EMBEDDING, embedding)) if is_wanted}
    found = [one for one in downloaded() if not wanted or one["type"] in wanted]
    if json:
        print_json(found)
        return
    if not found:
        output.say("No models found. `lmx doctor` says where I looked.")
        return
    table = Table("MODEL", "TYPE", "PARAMS", "ARCH", "SIZE", box=None)
    for one in found:
        size = format_bytes(one["sizeBytes"])
        params = one.get("paramsString", "")
        table.add_row(one["modelKey"], one["type"], params, one["architecture"], size)
    console.print(table)


def ps(*, json: AsJson = False, output: Output = NORMAL) -> None:
    """List the loaded models."""
    found = loaded(Client.find())
    if json:
        print_json(found)
        return
    if not found:
        output.say("No models are currently loaded.")
        return
    table = Table("IDENTIFIER", "STATUS", "SIZE", "CONTEXT", "PARALLEL", "TTL", box=None)
    for one in found:
        ttl = "" if one["ttlMs"] is None else f"{one['ttlMs'] / 1000:g} s"
        cells = (format_bytes(one["sizeBytes"]), one["contextLength"], one["parallel"], ttl)
        table.add_row(one["identifier"], one["status"].upper(), *map(str, cells))
    console.print(table)


def load(
    model: str,
    *,
    context_length: Annotated[int | None, Parameter(name=("--context-length", "-c"))] = None,
    parallel: int | None = None,
    ttl: float | None = None,
    identifier: str | None = None,
    gpu: str | None = None,
    estimate_only: Flag = False,
    output: Output = NORMAL,
) -> None:
    """Load a model, and wait until it is ready.

    Parameters
    ----------
    context_length
        Tokens that one request may use.
    parallel
        Requests that run at once.
    ttl
        Unload it after so many seconds without a request.
    identifier
        None but the model's own: a loaded model has one instance, of the model's id.
    gpu
        Without effect: the config says it (`gpu_layers` of `[gguf]`).
    estimate_only
        Only say what it would take; exit 1 if it cannot be loaded now.
    """
    client, begun = Client.find(), time.monotonic()
    body = given(model=model, context_length=context_length, parallel=parallel)
    if estimate_only:
        sys.exit(0 if _estimate(client, body, output) else 1)
    _check_identifier(client, model, identifier)
    if gpu is not None:
        print_error("--gpu has no effect: [gguf] gpu_layers in the config says it")
    status = client.post("/admin/models/load", body | given(ttl_s=ttl))
    output.say(f"Model loaded successfully in {time.monotonic() - begun:.2f}s.")
    output.say(f'To use the model in the API/SDK, use the identifier "{status["id"]}".')


def unload(
    identifier: str | None = None,
    *,
    every: Annotated[bool, Parameter(name=("--all", "-a"), negative="")] = False,
    output: Output = NORMAL,
) -> None:
    """Unload a model after its running requests.

    Parameters
    ----------
    identifier
        Which one; not needed where only one is loaded.
    every
        Unload all.
    """
    client = Client.find()
    names = [one["identifier"] for one in loaded(client)]
    if every and identifier is not None:
        raise InvalidRequestError("--all unloads every model: give no identifier")
    if identifier is not None:
        wanted = [client.get(f"/admin/models/{identifier}", fit="false")["id"]]
    elif every or len(names) == 1:
        wanted = names
    else:
        listed = ", ".join(names) or "none"
        raise InvalidRequestError(f"which one? Loaded are: {listed}. `--all` unloads every model")
    for name in wanted:
        if name not in names:
            raise ModelNotFoundError(f"{name} is not loaded")
        client.post("/admin/models/unload", {"model": name})
        output.say(f'Model "{name}" unloaded.')


def get(model: str, *, output: Output = NORMAL) -> None:
    """Download a model, unless it is there; one that was begun goes on from where it stood.

    Parameters
    ----------
    model
        PUBLISHER/NAME on the hub, with @Q4_K_M behind it or not, or the address of its page there.
    """
    client = Client.find()
    try:
        there = client.get(f"/admin/models/{model}", fit="false")
    except ModelNotFoundError:
        name, _, quantization = model.partition("@")
        spec = {"repo": name, "quantization": quantization or None}
        body = {"kind": "download", "spec": spec}
        job = follow_job(client, "/admin/jobs", body, f"lms get {model}", quiet=output.quiet)
        output.say(f"Downloaded {(job['result'] or {}).get('model', name)}.")
    else:
        output.say(f"{there['id']} is there already.")


def _estimate(client: Client, body: Mapping[str, Any], output: Output) -> bool:
    """Say what a load would take, and return whether it could be done now."""
    found = client.post("/admin/models/estimate", body)
    problem = f"This model cannot be loaded now: {found['problem']}."
    output.say(f"Model: {found['model']}")
    output.say(f"Estimated Total Memory: {format_bytes(found['needed_bytes'])}")
    output.say("Estimate: " + ("This model may be loaded." if found["fits"] else problem))
    return bool(found["fits"])


def _check_identifier(client: Client, model: str, identifier: str | None) -> None:
    """Refuse a name for the loaded model that it would not answer to."""
    if identifier is None:
        return
    wanted = client.get(f"/admin/models/{model}", fit="false")["id"]
    try:
        named = client.get(f"/admin/models/{identifier}", fit="false")["id"]
    except ModelNotFoundError:
        named = None
    if named != wanted:
        raise InvalidRequestError(
            f"{wanted} does not answer to {identifier}: name it in `aliases` of a [[model]] table"
        )
