"""A small hub on this machine that answers the real client library, and every way it may fail."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import deque
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest
from attrs import define, field
from huggingface_hub import close_session
from lmx_hub.fetch import fetch
from lmx_hub.kind import DownloadSpec
from lmx_model_folders.sources import FolderSource

COMMIT = "c0ffee" * 6 + "c0ff"
PIECE = 16 * 1024


def quiet(done, total=None, note=""):
    """Report to nobody."""


@define
class Remote:
    """A file on the hub.

    :ivar faults: each is used for one GET, then the file is served as it should be.
    :ivar always: a fault that does not pass.
    :ivar told: what the listing says in place of the truth: ``size``, ``sha256``.
    """

    data: bytes
    is_lfs: bool = True
    faults: deque = field(factory=deque, converter=deque)
    always: object = None
    told: dict = field(factory=dict)

    def listed(self, name):
        blob = hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()
        size = self.told.get("size", len(self.data))
        sibling = {"rfilename": name, "blobId": blob, "size": size}
        if self.is_lfs:
            sha256 = self.told.get("sha256", hashlib.sha256(self.data).hexdigest())
            sibling["lfs"] = {"sha256": sha256, "size": size, "pointerSize": 134}
        return sibling


class LocalHub:
    """Serves ``repos``, and remembers ``requests`` and how many bytes of files it has ``sent``.

    :ivar errors: a repository's own fault, used for its listing.
    :ivar closing: set when the hub goes away; what stalls waits for it.
    """

    def __init__(self):
        self.repos = {}
        self.errors = {}
        self.requests = []
        self.sent = 0
        self.pause_s = 0
        self.closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._server.hub = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def add(self, repo, **files):
        """Add a repository; names of files are given with ``__`` for a dot."""
        return self.put(repo, {name.replace("__", "."): data for name, data in files.items()})

    def put(self, repo, files):
        self.repos[repo] = {
            name: data if isinstance(data, Remote) else Remote(data) for name, data in files.items()
        }
        return self.repos[repo]

    def got(self, method="GET", part="/resolve/"):
        """Return the headers of the requests that were made for files."""
        return [headers for what, path, headers in self.requests if what == method and part in path]

    def starts(self):
        """Return from which byte on each GET of a file asked."""
        return [int(headers.get("range", "bytes=0-")[6:-1]) for headers in self.got()]

    def close(self):
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Handler(BaseHTTPRequestHandler):
    """The hub's routes."""

    protocol_version = "HTTP/1.1"

    @property
    def hub(self):
        return self.server.hub

    def log_message(self, *args):
        """Say nothing."""

    def handle(self):
        with suppress(ConnectionError):
            super().handle()

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.hub.requests.append((self.command, path, headers))
        if path.startswith("/api/models/"):
            self._list(*path.removeprefix("/api/models/").split("/revision/"))
        else:
            self._resolve(*path[1:].split("/resolve/"))

    do_HEAD = do_GET

    def _list(self, repo, revision="main"):
        if repo in self.hub.errors:
            self.hub.errors[repo](self, None)
        elif repo not in self.hub.repos:
            self.refuse(404, "RepoNotFound")
        elif revision != "main":
            self.refuse(404, "RevisionNotFound")
        else:
            files = self.hub.repos[repo]
            siblings = [file.listed(name) for name, file in files.items()]
            listing = {"id": repo, "sha": COMMIT, "siblings": siblings}
            self.send(200, json.dumps(listing).encode(), {"content-type": "application/json"})

    def _resolve(self, repo, rest):
        commit, _, name = rest.partition("/")
        assert commit == COMMIT
        file = self.hub.repos.get(repo, {}).get(name)
        if file is None:
            self.refuse(404, "EntryNotFound")
        elif file.faults:
            file.faults.popleft()(self, file)
        elif file.always:
            file.always(self, file)
        else:
            self.serve(file)

    def serve(self, file, *, data=None, end=None, length=None, ranges=True, close=False):
        """Send a file, or what a fault makes of it.

        :param end: how many bytes to send before the connection is cut.
        :param length: what to say instead of the true length.
        """
        data = file.data if data is None else data
        start = int(self.headers.get("range", "bytes=0-")[6:-1]) if ranges else 0
        body, headers = data[start:], {}
        if start:
            headers["content-range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self.send(206 if start else 200, body, headers, end=end, length=length, close=close)

    def refuse(self, status, code="", **headers):
        self.send(status, b"", {"x-error-code": code, **headers})

    def send(self, status, body, headers, *, end=None, length=None, close=False):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if close:
            self.send_header("connection", "close")
        else:
            self.send_header("content-length", str(len(body) if length is None else length))
        self.end_headers()
        self.close_connection = close or length is not None or end is not None
        for at in range(0, len(body[:end]), PIECE):
            piece = body[:end][at : at + PIECE]
            self.wfile.write(piece)
            self.hub.sent += len(piece) if "/resolve/" in self.path else 0
            time.sleep(self.hub.pause_s)


@pytest.fixture
def new_hub():
    """Return a function that starts hubs."""
    hubs = []

    def start():
        hubs.append(LocalHub())
        return hubs[-1]

    yield start
    for hub in hubs:
        hub.close()


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Keep the machine's own settings out, and wait for nothing."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("lmx_hub.hub.sleep", lambda seconds: None)
    yield
    close_session()


@pytest.fixture
def hub(new_hub):
    return new_hub()


@pytest.fixture
def root(tmp_path):
    return tmp_path / "models"


@pytest.fixture
def pull(hub, root):
    """Return a function that downloads in this process, as the child does."""

    def call(repo="org/name", report=quiet, **changes):
        spec = {"revision": "main", "quantization": None, "files": None, "root": str(root)}
        spec |= {"endpoint": hub.url, "reserve_bytes": 0, "stall_timeout_s": 10, "wait_s": 1.5}
        return fetch({"repo": repo, "key": f"{repo}@main:", **spec, **changes}, report)

    return call


@pytest.fixture
def listed(root):
    """Return a function that lists models as the daemon's catalogue finds them."""

    def call():
        found = FolderSource("home", (root,)).locations()
        return {location.name: set(location.files) for location in found}

    return call


@pytest.fixture
def remote():
    return Remote


@pytest.fixture
def download():
    return DownloadSpec
