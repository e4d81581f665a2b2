"""``lmx bench``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from lmx_kernel.cli.client import Client
from lmx_kernel.cli.progress import follow_job
from lmx_kernel.cli.terminal import AsJson, ConfigPath, console, given, print_json


def bench(
    model: str,
    *,
    prompt_tokens: int | None = None,
    max_tokens: int | None = None,
    parallel: int | None = None,
    rounds: int | None = None,
    json: AsJson = False,
    config: ConfigPath = None,
) -> None:
    """Measure how fast a model is on the daemon's machine.

    Parameters
    ----------
    prompt_tokens
        Of each prompt.
    max_tokens
        Of each answer.
    parallel
        Answers at once, beside one alone.
    rounds
        The median of so many counts.
    """
    from lmx_admin_api.benchmark import Benchmarks  # noqa: PLC0415 - other commands need no kernel

    spec = given(
        model=model,
        prompt_tokens=prompt_tokens,
        max_tokens=max_tokens,
        parallel=parallel,
        rounds=rounds,
    )
    body = {"kind": Benchmarks.name, "spec": spec}
    client, again = Client.find(config), f"lmx bench {model}"
    job = follow_job(client, "/admin/jobs", body, again, quiet=json)
    print_json(job) if json else console.print(_table(job))


def _table(job: Mapping[str, Any]) -> Table:
    result = job["result"]
    table = Table("model", "first token", "prompt", "one answer", "together", box=None)
    table.add_row(
        result["model"],
        f"{result['first_token_s'] * 1000:.1f} ms",
        f"{result['prompt_tokens_per_s']:.1f} tok/s",
        f"{result['tokens_per_s']:.1f} tok/s",
        f"{result['parallel_tokens_per_s']:.1f} tok/s ({job['spec']['parallel']})",
    )
    return table
