"""How long a request would wait for a model."""

from __future__ import annotations

from lmx_kernel.observe.statistics import Throughput
from lmx_kernel.runtime.instance import Instance, State


def expected_wait_s(instance: Instance, throughput: Throughput) -> float:
    """Return how long a new request would wait to begin: the load, if the model is not loaded, and
    the requests that are queued before it. An estimate, from the averages of the model.
    """
    ahead = instance.requests.waiting / instance.spec.options.parallel
    load_s = 0.0 if instance.state is State.READY else throughput.load_s
    return ahead * throughput.answer_s + load_s
