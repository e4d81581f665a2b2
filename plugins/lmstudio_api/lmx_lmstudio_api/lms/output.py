"""The options that LM Studio's commands have in common."""

from __future__ import annotations

from typing import Annotated

from attrs import frozen
from cyclopts import Parameter

from lmx_kernel.cli.terminal import Flag, console

Accepted = Annotated[bool, Parameter(negative="", show=False)]


@Parameter(name="*")
@frozen(kw_only=True)
class Output:
    """How much a command says, and options of the original that change nothing here.

    :param quiet: say nothing but errors and what ``--json`` asks for.
    :param yes: nothing is asked.
    :param verbose: there is no more to say.
    :param log_level: the log is `lms log stream`.
    :param exact: a name always means one model.
    :param gguf: the hub's plugin chooses.
    :param mlx: the same.
    """

    quiet: Flag = False
    yes: Annotated[bool, Parameter(name=("--yes", "-y"), negative="", show=False)] = False
    verbose: Accepted = False
    log_level: Annotated[str | None, Parameter(show=False)] = None
    exact: Accepted = False
    gguf: Accepted = False
    mlx: Accepted = False

    def say(self, text: str) -> None:
        """Print a line for people."""
        if not self.quiet:
            console.print(text, soft_wrap=True)


NORMAL = Output()
