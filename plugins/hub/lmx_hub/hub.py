"""The hub as a download sees it: a list of files, and their bytes from any place on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import sleep

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

PAUSE_S = 0.5
MAX_PAUSE_S = 60


class UnreachableError(UnavailableError):
    """There is no way to the hub now."""


@define
class Patience:
    """Makes calls to the hub again while it is away, with growing pauses.

    Only the pauses count, so the time for which the machine sleeps does not.

    :param wait_s: how long to wait for something to come, in pauses together.
    :param tell: is called with what is waited for, before each pause.
    """

    wait_s: float
    tell: Callable[[str], None]
    _waited_s: float = 0.0
    _pause_s: float = PAUSE_S

    def after(self, error: UnavailableError) -> None:
        """Wait before the next try.

        :raises UnavailableError: ``error``, if it is final, or all the time is used up.
        """
        pause_s = min(max(error.retry_after_s or 0, self._pause_s), MAX_PAUSE_S)
        if not error.retryable or self._waited_s + pause_s > self.wait_s:
            raise error
        what = "network" if isinstance(error, UnreachableError) else "hub"
        self.tell(f"waiting for the {what}: {error.message}; next try in {pause_s:g} s")
        sleep(pause_s)
        self._waited_s += pause_s
        self._pause_s = min(2 * self._pause_s, MAX_PAUSE_S)

    def renew(self) -> None:
        """Wait as long as at first: something came."""
        self._waited_s, self._pause_s = 0.0, PAUSE_S


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
    """

    repo: str
    endpoint: str
    timeout_s: float

    def listing(self, revision: str, patience: Patience) -> Listing:
        """Return what is there at a revision; waits for it while the hub is away.

        :raises LmxError: the repository or the revision is missing or closed, or the hub is away.
        """
        api = HfApi(endpoint=self.endpoint or None, library_name="lmx")

        while True:
            try:
                with _told(self.repo):
                    info = api.model_info(
                        self.repo, revision=revision, files_metadata=True, timeout=self.timeout_s
                    )
                return Listing(info.sha or revision, tuple(map(_remote, info.siblings or ())))
            except UnavailableError as error:
                patience.after(error)
            except (ValueError, TypeError, KeyError):
                reason = "what answers at the hub's address is no hub"
                raise UnavailableError(reason, retryable=False) from None

    @contextmanager
    def opened(self, commit: str, path: str, start: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        """Open a file from the byte ``start`` on; give where the bytes really start, and them:
        none, if the file is shorter.

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
            if start and response.status_code == 416:  # RFC 9110: there is nothing from there on
                yield start, iter(())
                return
            hf_raise_for_status(response)
            yield (start if response.status_code == 206 else 0), response.iter_bytes()


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
        raise UnreachableError(f"the hub cannot be reached ({type(error).__name__})") from None


def _of_status(response: httpx2.Response) -> LmxError:
    status = response.status_code
    if status in (401, 403):
        return ForbiddenError(f"the hub refuses with status {status}: look at the token")
    after = response.headers.get("retry-after", "")
    return UnavailableError(
        f"the hub answers with status {status}",
        retry_after_s=min(int(after), MAX_PAUSE_S) if after.isdecimal() else None,
        retryable=status in (408, 425, 429) or status >= 500,
    )
