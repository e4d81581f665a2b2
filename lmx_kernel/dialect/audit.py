"""Who changed what: one line of log for each change that was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from falcon.asgi import Request

from lmx_kernel.errors import InternalError, LmxError

log = structlog.get_logger("lmx.audit")


@contextmanager
def audited(req: Request, action: str, target: str) -> Iterator[None]:
    """Write a line when the block ends, with how it ended: ``ok``, an error's code, or
    ``client_left`` for one who did not wait for the end.
    """
    outcome = "client_left"
    try:
        yield
        outcome = "ok"
    except LmxError as error:
        outcome = error.code
        raise
    except Exception:
        outcome = InternalError.code
        raise
    finally:
        key = req.scope["state"]["key"]
        log.info("audit", action=action, target=target[:256], key=key, outcome=outcome)
