"""``lmx route``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from attrs import frozen
from cyclopts import App, Parameter
from rich.table import Table
from rich.text import Text

from lmx_kernel.cli.client import Client
from lmx_kernel.cli.terminal import AsJson, ConfigPath, console, print_json
from lmx_kernel.errors import LmxError
from lmx_kernel.interfaces import HttpRequest
from lmx_kernel.kernel.boot import boot
from lmx_kernel.types import ChatPrompt, Constraint, GenerationRequest, Message, TextPart, Tool
from lmx_router_rules.explain import Explanation, explain

app = App(name="route", version_flags=())


@Parameter(name="*")
@frozen(kw_only=True)
class Asked:
    """What a client would ask."""

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

    def request(self, prompt: str) -> GenerationRequest:
        """Return the request that this stands for."""
        turns = (_message("system", self.system), _message("user", prompt))
        return GenerationRequest(
            model=self.model,
            prompt=ChatPrompt(
                turns if self.system else turns[1:], (Tool(name="any"),) if self.tools else ()
            ),
            max_tokens=self.max_tokens,
            constraint=Constraint("json_object") if self.structured else None,
        )

    def caller(self) -> HttpRequest:
        """Return the HTTP request that it would come with."""
        pairs = (line.partition(":") for line in self.header)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        return HttpRequest(method="POST", path="", headers=headers, client="", key=self.key)


_NOTHING = Asked()


@app.default
def route(
    prompt: Annotated[str, Parameter(allow_leading_hyphen=True)],
    *,
    asked: Asked = _NOTHING,
    json: AsJson = False,
    config: ConfigPath = None,
) -> None:
    """Say which model a request would go to, and why. Nothing is asked and nothing is loaded."""
    found = explain(boot(config), asked.request(prompt), asked.caller(), _status(config))
    if json:
        print_json(found)
    else:
        _print(found)


def _message(role: str, text: str) -> Message:
    return Message(role, (TextPart(text),))


def _status(config: Path | None) -> Any:
    """Return what the running daemon says of itself; None if none answers."""
    try:
        return Client.find(config).get("/health/status")
    except LmxError:
        return None


def _print(found: Explanation) -> None:
    by = "/".join(filter(None, (found.router, found.rule))) or "the name"
    console.print(f"{found.model or 'no model'}, by {by} ({found.reason})", markup=False)
    console.print(f"task {found.task}, about {found.prompt_tokens} tokens", markup=False)
    if not found.is_live:
        console.print("No daemon answers, so no model counts as loaded.")
    if found.chain:
        console.print(f"chain: {', '.join(found.chain)}", markup=False)
    if found.skipped:
        table = Table("skipped", "why", box=None)
        for one in found.skipped:
            table.add_row(Text(one.model), Text(one.reason))
        console.print(table)
