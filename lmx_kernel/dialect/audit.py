"""Who changed what: one line of log for each change that was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import structlog
from falcon.asgi import Request

from lmx_kernel.errors import InternalError, LmxError

log = structlog.get_logger("lmx.audit")


def audited(req: Request, action: str, target: str) -> AbstractContextManager[None]:
    """Write a line when the block ends, with how it ended: ``ok``, an error's code, or
    ``client_left`` for one who did not wait for the end.
    """
    return audited_for(req.scope["state"]["key"], action, target)


@contextmanager
def audited_for(key: str, action: str, target: str) -> Iterator[None]:
    """Write a line as :func:`audited` does, for what did not come by HTTP.

    :param key: the name of the client's API key; "" for none.
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
        log.info("audit", action=action, target=target[:256], key=key, outcome=outcome)
