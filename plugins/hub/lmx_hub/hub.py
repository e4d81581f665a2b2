"""The hub as a download sees it: a list of files, and their bytes from any place on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import httpx2
from attrs import define, frozen
from huggingface_hub import HfApi, get_session, hf_hub_url
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from lmx_hub.choice import RemoteFile
from lmx_kernel.errors import ForbiddenError, LmxError, NotFoundError, UnavailableError

T = TypeVar("T")
PAUSE_S = 0.5
MAX_PAUSE_S = 60


@define
class Patience:
    """Whether a call that failed is made again: until ``tries`` in a row brought nothing."""

    tries: int
    _failed: int = 0

    def after(self, error: UnavailableError) -> None:
        """Wait before the next try.

        :raises UnavailableError: ``error``, if there is none.
        """
        self._failed += 1
        if not error.retryable or self._failed >= self.tries:
            raise error
        pause_s = max(error.retry_after_s or 0, PAUSE_S * 2 ** (self._failed - 1))
        time.sleep(min(pause_s, MAX_PAUSE_S))

    def renew(self) -> None:
        """Count anew: something came."""
        self._failed = 0


@frozen
class Listing:
    """What a repository held at one commit."""

    commit: str
    files: tuple[RemoteFile, ...]


@frozen
class Hub:
    """One repository on the hub.

    :param endpoint: the hub's address; empty is the library's own.
    :param timeout_s: longest silence of a connection.
    :param tries: of a call that brings nothing.
    """

    repo: str
    endpoint: str
    timeout_s: float
    tries: int

    def listing(self, revision: str) -> Listing:
        """Return what is there at a revision.

        :raises LmxError: the repository or the revision is missing or closed, or the hub is away.
        """
        api = HfApi(endpoint=self.endpoint or None, library_name="lmx")

        def look() -> Listing:
            info = api.model_info(
                self.repo, revision=revision, files_metadata=True, timeout=self.timeout_s
            )
            return Listing(info.sha or revision, tuple(map(_remote, info.siblings or ())))

        try:
            return self._patiently(look)
        except (ValueError, TypeError, KeyError):
            reason = "what answers at the hub's address is no hub"
            raise UnavailableError(reason, retryable=False) from None

    @contextmanager
    def opened(self, commit: str, path: str, start: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        """Open a file from the byte ``start`` on; give where the bytes really start, and them.

        :raises LmxError: also where reading fails on the way.
        """
        url = hf_hub_url(self.repo, path, revision=commit, endpoint=self.endpoint or None)
        headers = build_hf_headers(library_name="lmx") | {"accept-encoding": "identity"}
        if start:
            headers["range"] = f"bytes={start}-"
        session, timeout = get_session(), httpx2.Timeout(self.timeout_s)
        with (
            _told(self.repo),
            session.stream("GET", url, headers=headers, timeout=timeout) as response,
        ):
            hf_raise_for_status(response)
            yield (start if response.status_code == 206 else 0), response.iter_bytes()

    def _patiently(self, call: Callable[[], T]) -> T:
        patience = Patience(self.tries)
        while True:
            try:
                with _told(self.repo):
                    return call()
            except UnavailableError as error:
                patience.after(error)


def _remote(sibling: RepoSibling) -> RemoteFile:
    sha256 = sibling.lfs.sha256 if sibling.lfs else None
    if sibling.size is None or (sha256 or sibling.blob_id) is None:
        raise ValueError("a file of which neither size nor hash is told")
    return RemoteFile(sibling.rfilename, sibling.size, sha256, sibling.blob_id)


# --- errors: none of the library's own messages, since they show addresses and headers -----------


@contextmanager
def _told(repo: str) -> Iterator[None]:
    try:
        yield
    except GatedRepoError:
        raise ForbiddenError(
            f"{repo} is gated: accept its terms on its page on the hub, and give a token of that "
            "account as hub.token in the config, or in HF_TOKEN"
        ) from None
    except RepositoryNotFoundError:
        raise NotFoundError(
            f"the hub has no model {repo}, or it is private and the token may not see it",
            param="repo",
        ) from None
    except RevisionNotFoundError:
        raise NotFoundError(f"{repo} has no such revision", param="revision") from None
    except EntryNotFoundError:
        raise NotFoundError(f"a file of {repo} is gone from the hub") from None
    except OfflineModeIsEnabled:
        reason = "the hub is not asked, since HF_HUB_OFFLINE is set"
        raise UnavailableError(reason, retryable=False) from None
    except HfHubHTTPError as error:
        raise _of_status(error.response) from None
    except (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError, httpx2.InvalidURL) as error:
        reason = f"the hub's address, or the token, cannot be used ({type(error).__name__})"
        raise UnavailableError(reason, retryable=False) from None
    except httpx2.HTTPError as error:
        raise UnavailableError(f"the hub cannot be reached ({type(error).__name__})") from None


def _of_status(response: httpx2.Response) -> LmxError:
    status = response.status_code
    if status in (401, 403):
        return ForbiddenError(f"the hub refuses with status {status}: look at the token")
    after = response.headers.get("retry-after", "")
    return UnavailableError(
        f"the hub answers with status {status}",
        retry_after_s=min(int(after), MAX_PAUSE_S) if after.isdecimal() else None,
        retryable=status in (408, 416, 425, 429) or status >= 500,
    )
