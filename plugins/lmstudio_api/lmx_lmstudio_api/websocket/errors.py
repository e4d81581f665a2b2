"""Errors as clients of the protocol show them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lmx_kernel.errors import (
    ConflictError,
    InvalidRequestError,
    LmxError,
    ModelNotFoundError,
    ModelUnloadedError,
)
from lmx_kernel.interfaces import Kernel
from lmx_lmstudio_api.model_facts import state_of, statuses

MAX_SHOWN = 20
NO_MODEL = "No model found"
_SHOWN_CHARS = 200


class NoModelError(ModelNotFoundError):
    """No model fits what a client asks for.

    :param query: what it asks for.
    :param loaded: ids of the models that are loaded.
    """

    def __init__(self, message: str, query: Mapping[str, Any], loaded: list[str]) -> None:
        super().__init__(message, param="model")
        self.query = query
        self.loaded = loaded


class DomainMismatchError(InvalidRequestError):
    """A model of another kind than the namespace is for.

    :param model: its id.
    :param actual: its kind; ``wanted`` is that of the namespace.
    """

    code = "domain_mismatch"

    def __init__(self, model: str, actual: str, wanted: str) -> None:
        super().__init__(f"{model} is no {wanted} model, but of the kind {actual}", param="model")
        self.display = {
            "code": "generic.domainMismatch",
            "path": model,
            "actualDomain": actual,
            "expectedDomain": wanted,
        }


class CancelledError(ConflictError):
    """The client did not want it any more."""

    code = "cancelled"


def error_object(error: LmxError) -> dict[str, Any]:
    """Return an error as the protocol has it. Clients show the title, and then what else there is;
    they know some errors by the code in ``displayData``.
    """
    found: dict[str, Any] = {"title": error.message, "rootTitle": error.message}
    data: dict[str, Any] = {"code": error.code}
    if error.param is not None:
        data["param"] = error.param
    if error.retry_after_s is not None:
        data["retryAfterSeconds"] = error.retry_after_s
    found["errorData"] = data
    match error:
        case NoModelError():
            found |= {"title": NO_MODEL, "rootTitle": NO_MODEL, "cause": error.message}
            found["displayData"] = {
                "code": "generic.noModelMatchingQuery",
                "query": error.query,
                "loadedModelsSample": error.loaded[:MAX_SHOWN],
                "totalLoadedModels": len(error.loaded),
            }
        case DomainMismatchError():
            found["displayData"] = error.display
        case ModelUnloadedError():
            found["displayData"] = {"code": "generic.specificModelUnloaded"}
    return found


@contextmanager
def naming_query(kernel: Kernel, name: str) -> Iterator[None]:
    """Word the error of an unknown model as this protocol does.

    :param name: as the client wrote it.
    :raises NoModelError: there is none of that name.
    """
    try:
        yield
    except NoModelError:
        raise
    except ModelNotFoundError as error:
        query = {"identifier": name[:_SHOWN_CHARS]} if name else {}
        raise NoModelError(error.message, query, loaded_ids(kernel)) from None


def loaded_ids(kernel: Kernel) -> list[str]:
    """Return the ids of all models that are loaded."""
    return [one for one, status in statuses(kernel).items() if state_of(status) == "loaded"]
