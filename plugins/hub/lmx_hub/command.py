"""``lmx pull``."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from lmx_kernel.cli.client import Client
from lmx_kernel.cli.progress import follow_job
from lmx_kernel.cli.terminal import AsJson, ConfigPath, command, console, given, print_json
from lmx_kernel.memory.sizes import format_bytes


def pull(
    repo: str,
    *,
    quantization: str | None = None,
    revision: str | None = None,
    files: Annotated[tuple[str, ...] | None, Parameter(name="--file", negative="")] = None,
    json: AsJson = False,
    config: ConfigPath = None,
) -> None:
    """Download a model; one that was begun goes on from where it stood.

    Parameters
    ----------
    repo
        PUBLISHER/NAME on the hub, with :Q4_K_M behind it or not, or the address of its page there.
    quantization
        Which one, of a repository that has several, such as Q4_K_M.
    revision
        A branch, a tag or a commit.
    files
        Names or patterns, to take these instead of what LMX would choose.
    """
    from lmx_hub.kind import Downloads  # noqa: PLC0415 - takes long, and its help does without

    client = Client.find(config)
    spec = given(repo=repo, quantization=quantization, revision=revision, files=files)
    body = {"kind": Downloads.name, "spec": spec}
    job = follow_job(client, "/admin/jobs", body, f"lmx pull {repo}", quiet=json)
    if json:
        print_json(job)
        return
    result = job["result"] or {}
    size_bytes, quantization = result.get("bytes"), result.get("quantization")
    size = f" ({format_bytes(size_bytes)})" if size_bytes else ""
    console.print(f"{result.get('model', repo)} is here{size}.")
    if quantization and len(result["quantizations"]) > 1:
        console.print(f"Ask for it as {result['model']}@{quantization}.")


app = command(pull)
