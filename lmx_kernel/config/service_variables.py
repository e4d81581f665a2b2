"""Variables that Kubernetes sets for each of its services, and that are no config of ours.

For a service called lmx-server it sets ``LMX_SERVER_PORT=tcp://10.0.0.7:1234`` and more of that
kind: https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_ADDRESS = re.compile(r"(tcp|udp|sctp)://\S+:\d+")
_PORT = "_PORT"
_REST = re.compile(
    r"_PORT|_SERVICE_HOST|_SERVICE_PORT(_\w+)?|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?"
)


def service_variables(environ: Mapping[str, str]) -> frozenset[str]:
    """Return the variables ``LMX_...`` that describe a service of the cluster."""
    ours = [name for name in environ if name.startswith("LMX_")]
    prefixes = [
        name.removesuffix(_PORT)
        for name in ours
        if name.endswith(_PORT) and _ADDRESS.fullmatch(environ[name])
    ]
    return frozenset(_of(prefixes, ours))


def _of(prefixes: Iterable[str], names: Iterable[str]) -> Iterable[str]:
    for name in names:
        if any(name.startswith(p) and _REST.fullmatch(name[len(p) :]) for p in prefixes):
            yield name
