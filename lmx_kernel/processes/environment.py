"""The environment of child processes: without the secrets that are the daemon's own."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

_SECRET = re.compile(
    r"(?:^|_)(?:\w*key|\w*token|\w*secret|\w*passw(?:or)?d|credentials?|authorization|cookies?)$",
    re.IGNORECASE,
)


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a child process.

    Children run code of plugins and read files of strangers. A variable whose name is that of a
    secret, such as ``LMX_SERVER_API_KEY`` and ``HF_TOKEN``, is passed on only by name.

    :param extra: variables to add, secrets too.
    """
    own = {name: value for name, value in os.environ.items() if not _SECRET.search(name)}
    return own | dict(extra or {})
