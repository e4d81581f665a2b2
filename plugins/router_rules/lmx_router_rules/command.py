"""``lmx route``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import attrs
from attrs import frozen
from cyclopts import App, Parameter
from rich.table import Table
from rich.text import Text

from lmx_kernel.cli.client import Client
from lmx_kernel.cli.light_config import light_settings
from lmx_kernel.cli.terminal import AsJson, ConfigPath, console, print_json
from lmx_kernel.interfaces import RouteQuery, SettingsSection
from lmx_kernel.routing.decide import estimate_tokens
from lmx_router_rules.settings import RulesSettings
from lmx_router_rules.task import classify

app = App(name="route", version_flags=())


@Parameter(name="*")
@frozen(kw_only=True)
class Options:
    """What a client would ask, beside the prompt."""

    model: Annotated[str, Parameter(help="The name that it would ask for.")] = "auto"
    system: Annotated[str, Parameter(help="A system text before the prompt.")] = ""
    tools: Annotated[bool, Parameter(negative="", help="As if there were tools to call.")] = False
    structured: Annotated[bool, Parameter(negative="", help="As if the answer had to be JSON.")] = (
        False
    )
    max_tokens: Annotated[int | None, Parameter(help="The longest answer.")] = None
    key: Annotated[str, Parameter(help="The name of the API key that it would show.")] = ""
    header: Annotated[
        tuple[str, ...], Parameter(negative="", help='A header, such as "x-team: red".')
    ] = ()

    def query(self, prompt: str) -> RouteQuery:
        """Return the question for the daemon."""
        fields = attrs.asdict(self)
        pairs = (line.partition(":") for line in fields.pop("header"))
        headers = {name.strip(): value.strip() for name, _, value in pairs}
        return RouteQuery(prompt=prompt, headers=headers, **fields)


_NO_OPTIONS = Options()


@app.default
def route(
    prompt: Annotated[str, Parameter(allow_leading_hyphen=True)],
    *,
    options: Options = _NO_OPTIONS,
    json: AsJson = False,
    config: ConfigPath = None,
) -> None:
    """Say which model a request would go to, and why. Nothing is asked and nothing is loaded."""
    section = SettingsSection("router_rules", RulesSettings)
    query, settings = options.query(prompt), light_settings(config, [section])
    found = Client.of(settings).post("/admin/route", attrs.asdict(query))
    request = query.request()
    found["task"] = classify(request, settings.get(RulesSettings).long_tokens)
    found["prompt_tokens"] = estimate_tokens(request.prompt)
    if json:
        print_json(found)
    else:
        _print(found)


def _print(found: Mapping[str, Any]) -> None:
    by = "/".join(filter(None, (found["router"], found["rule"]))) or "the name"
    console.print(f"{found['model'] or 'no model'}, by {by} ({found['reason']})", markup=False)
    console.print(f"task {found['task']}, about {found['prompt_tokens']} tokens", markup=False)
    if found["chain"]:
        console.print(f"chain: {', '.join(found['chain'])}", markup=False)
    if found["skipped"]:
        table = Table("skipped", "why", box=None)
        for one in found["skipped"]:
            table.add_row(Text(one["model"]), Text(one["reason"]))
        console.print(table)
