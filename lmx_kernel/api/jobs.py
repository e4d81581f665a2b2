"""For kinds of jobs: work in a process of its own."""

from lmx_kernel.jobs.child import (
    run_child,
)
from lmx_kernel.processes.environment import (
    child_environment,
)

__all__ = [
    "child_environment",
    "run_child",
]
