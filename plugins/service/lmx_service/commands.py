"""``lmx service``."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Annotated, NoReturn

from cyclopts import App, Parameter

from lmx_kernel.http.settings import ServerSettings
from lmx_service.launchd import Launchd
from lmx_service.supervisor import Supervisor, plan_launch
from lmx_service.systemd import Systemd

SUPERVISORS: dict[str, type[Supervisor]] = {"darwin": Launchd, "linux": Systemd}
# What the daemon, its downloads and its libraries read from the environment, beside LMX_...
VARIABLES = re.compile(
    r"HF_\w+|(DY)?LD_LIBRARY_PATH|(CUDA|HIP|ROCR)_VISIBLE_DEVICES|SSL_CERT_(FILE|DIR)"
    r"|(HTTPS?|ALL|NO)_PROXY|(https?|all|no)_proxy"
)
app = App(name="service", help="Run LMX as a service of yours, which starts again when it fails.")


@app.command
def install(
    config: Annotated[Path | None, Parameter(name="--config", help="As for `lmx serve`.")] = None,
    show: Annotated[bool, Parameter(name="--print", negative="")] = False,
) -> None:
    """Start LMX now and with every session; or only --print the service file."""
    from lmx_kernel.kernel.boot import boot  # noqa: PLC0415 - takes long, the others do without

    booted = boot(config)
    settings, supervisor = booted.settings, _supervisor()
    launch = plan_launch(settings.home, config, settings.get(ServerSettings).drain_s)
    if show:
        _say(supervisor.render(launch))
        return
    problem = supervisor.install(launch)
    _say(f"Wrote {supervisor.file}.")
    _warn_of_variables(tuple(f"LMX_{section.name.upper()}_" for section in booted.sections))
    if problem:
        _fail(f"It is not started: {problem}\nStart it by hand: {supervisor.by_hand}")
    _say(f"It is started. {supervisor.advice}")


@app.command
def uninstall() -> None:
    """Stop the service and remove its file; models and config stay."""
    supervisor = _supervisor()
    file = supervisor.installed_file()
    if file is None:
        _say("It is not installed.")
        return
    problem = supervisor.uninstall()
    _say(f"Removed {file}.")
    if problem:
        _fail(f"It may still run: {problem}")


@app.command
def status() -> None:
    """Say whether the service is installed and runs; exit 1 if it does not."""
    supervisor = _supervisor()
    file = supervisor.installed_file()
    if file is None:
        _fail("It is not installed.")
    state = supervisor.state()
    _say(f"{file}: {state}")
    sys.exit(0 if state == "running" else 1)


def _supervisor() -> Supervisor:
    if sys.platform not in SUPERVISORS:
        _fail(f"LMX knows no way to be a service on {sys.platform}: run `lmx serve`.")
    return SUPERVISORS[sys.platform]()


def _warn_of_variables(overrides: tuple[str, ...]) -> None:
    """Name the variables of this shell that the service will not have."""
    for name in sorted(os.environ):
        if name.startswith(overrides):
            _say(f"The service does not see {name}: set it in the config.")
        elif VARIABLES.fullmatch(name):
            _say(f"The service does not see {name}: {_supervisor().variable_advice}.")


def _say(text: str) -> None:
    print(text)  # noqa: T201 - this is the command line


def _fail(message: str) -> NoReturn:
    print(message, file=sys.stderr)  # noqa: T201 - this is the command line
    sys.exit(1)
