"""Whatever the hub does: a model is whole and right, or nobody lists it (FAULTS 14, 15, 20, 21)."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import random
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from lmx_hub.place import Place

from lmx_kernel import errors

CONFIG = b'{"model_type": "tiny"}'
RNG = random.Random(1)
WEIGHTS = RNG.randbytes(300_000)


def counts(*few_and_full):
    few, full = few_and_full
    return pytest.mark.parametrize("count", [few, pytest.param(full, marks=pytest.mark.full)])


def model(remote, **weights):
    return {
        "config.json": remote(CONFIG, is_lfs=False),
        "model.safetensors": remote(WEIGHTS, **weights),
    }


def on_disk(root):
    """Return every file below a folder, by its path, with its content."""
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def check_whole(root):
    assert on_disk(root) == {
        "org/name/config.json": CONFIG,
        "org/name/model.safetensors": WEIGHTS,
    }


# --- when all is well ----------------------------------------------------------------------------


def test_a_model_arrives_whole_and_is_listed(hub, root, pull, listed, remote):
    hub.put("org/name", model(remote) | {"modeling.py": b"boom", "pytorch_model.bin": b"boom"})
    told = []
    result = pull(report=lambda done, total, note="": told.append((done, total, note)))
    check_whole(root)
    assert listed() == {"org/name": {"config.json", "model.safetensors"}}
    assert result["model"] == "org/name"
    assert result["files"] == ["config.json", "model.safetensors"]
    assert result["bytes"] == len(CONFIG) + len(WEIGHTS)
    assert {total for _, total, _ in told} == {result["bytes"]}
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert told[-1][0] == result["bytes"]
    assert {"config.json", "model.safetensors"} <= {note for _, _, note in told}


def test_what_is_there_already_is_not_fetched_again(hub, root, pull, remote):
    hub.put("org/name", model(remote))
    pull()
    before = len(hub.got())
    assert pull()["bytes"] == len(CONFIG) + len(WEIGHTS)
    assert len(hub.got()) == before
    (root / "org/name/model.safetensors").write_bytes(b"x" * len(WEIGHTS))
    pull()
    assert len(hub.got()) == before + 1
    check_whole(root)


def test_another_quantization_joins_the_first(hub, pull, listed):
    hub.put("org/name", {"a-Q4_0.gguf": b"4" * 9, "a-Q8_0.gguf": b"8" * 9, "README.md": b"hi"})
    result = pull(quantization="Q8_0", key="8")
    assert (result["quantization"], result["quantizations"]) == ("Q8_0", ["Q4_0", "Q8_0"])
    assert listed() == {"org/name": {"a-Q8_0.gguf", "README.md"}}
    assert pull(key="any")["quantization"] == "Q4_0"
    assert listed() == {"org/name": {"a-Q8_0.gguf", "a-Q4_0.gguf", "README.md"}}


def test_a_new_revision_replaces_what_changed(hub, root, pull, remote):
    hub.put("org/name", model(remote) | {"old.json": b"{}"})
    pull()
    hub.repos["org/name"]["config.json"] = remote(b'{"new": 1}', is_lfs=False)
    pull()
    assert (root / "org/name/config.json").read_bytes() == b'{"new": 1}'
    assert not list((root / "org").glob("*.part"))


def test_files_in_folders_keep_their_place(hub, pull, listed):
    hub.put("org/name", {"BF16/a-BF16-00001-of-00001.gguf": b"1", "a-Q4_0.gguf": b"4"})
    pull(quantization="bf16")
    assert listed() == {"org/name/BF16": {"a-BF16-00001-of-00001.gguf"}}


def test_an_empty_file_arrives_as_well(hub, root, pull, remote):
    hub.put("org/name", model(remote) | {"README.md": remote(b"", is_lfs=False)})
    pull()
    assert on_disk(root)["org/name/README.md"] == b""
    (root / "org/name/README.md").unlink()
    pull()
    assert on_disk(root)["org/name/README.md"] == b""


# --- what goes wrong on the way (21) -------------------------------------------------------------


def cut(end):
    return lambda handler, file: handler.serve(file, end=end)


def short(handler, file):
    """Say less than there is, and send that."""
    handler.serve(file, end=1000, length=1000)


def long(handler, file):
    """Say more than there is."""
    handler.serve(file, length=len(file.data) + 5000)


def endless(handler, file):
    """Send more than there is, without saying how much."""
    handler.serve(file, data=file.data + b"more" * 50_000, close=True)


def ignore_range(handler, file):
    handler.serve(file, ranges=False)


def ignore_range_and_cut(handler, file):
    handler.serve(file, ranges=False, end=100_000)


def wrong(handler, file):
    handler.serve(file, data=bytes(len(file.data)))


def stall(handler, file):
    """Stop after a piece, with the connection open."""
    handler.serve(file, end=50_000)
    handler.wfile.flush()
    handler.hub.closing.wait()


def hang(handler, file):
    """Never get further than the first piece."""
    handler.send_response(200)
    handler.send_header("content-length", str(len(file.data)))
    handler.end_headers()
    handler.wfile.write(file.data[:50_000])
    handler.hub.closing.wait()


def status(code, **headers):
    return lambda handler, file: handler.refuse(code, **headers)


def drop(handler, file):
    handler.close_connection = True


PASSING = {
    "cut at once": [cut(0)],
    "cut": [cut(100_000)],
    "cut often": [cut(30_000)] * 9,
    "says less": [short],
    "says more": [long],
    "ignores the range": [cut(100_000), ignore_range],
    "ignores the range again": [ignore_range_and_cut, ignore_range_and_cut, ignore_range],
    "wrong content": [wrong],
    "wrong rest": [cut(100_000), wrong],
    "hangs": [hang],
    "hangs again and again": [stall] * 5,
    "busy": [status(429, retry_after="0")],
    "away": [status(503), status(502)],
    "slow": [status(408)],
    "drops": [drop, drop],
    "wrong range": [cut(100_000), lambda handler, file: handler.send(206, file.data, {})],
}


@pytest.mark.parametrize("faults", PASSING.values(), ids=PASSING)
def test_a_fault_that_passes_is_overcome(hub, root, pull, remote, faults):
    hub.put("org/name", model(remote, faults=faults))
    pull(stall_timeout_s=0.3 if {hang, stall} & {*faults} else 10)
    check_whole(root)
    assert not hub.repos["org/name"]["model.safetensors"].faults


def test_what_is_sent_too_much_is_not_taken(hub, root, pull, remote):
    hub.put("org/name", model(remote, always=endless))
    pull()
    check_whole(root)


LASTING = {
    "cuts at once": (cut(0), "cannot be reached"),
    "says more": (lambda h, f: h.serve(f, data=f.data[:1000], length=5000), "cannot be reached"),
    "sends less": (lambda h, f: h.serve(f, data=f.data[:1000]), "came damaged 3 times"),
    "wrong content": (wrong, "came damaged 3 times"),
    "hangs": (hang, "cannot be reached"),
    "never gets further": (ignore_range_and_cut, "cannot be reached"),
    "busy": (status(429, retry_after="0"), "status 429"),
    "away": (status(500), "status 500"),
    "odd": (status(418), "status 418"),
    "drops": (drop, "cannot be reached"),
}


@pytest.mark.parametrize(("fault", "reason"), LASTING.values(), ids=LASTING)
def test_a_fault_that_lasts_fails_and_nothing_is_listed(hub, pull, listed, remote, fault, reason):
    hub.put("org/name", model(remote, always=fault))
    with pytest.raises(errors.UnavailableError, match=reason):
        pull(stall_timeout_s=0.3 if fault is hang else 10)
    assert listed() == {}


def test_a_hub_that_lies_about_size_or_hash_is_not_believed(hub, pull, listed, remote):
    for told in ({"size": 1000}, {"size": len(WEIGHTS) + 1}, {"sha256": "0" * 64}):
        hub.put("org/name", model(remote, told=told))
        with pytest.raises(errors.UnavailableError):
            pull()
        assert listed() == {}


def test_a_small_file_is_checked_as_well(hub, pull, listed, remote):
    files = model(remote)
    files["config.json"].always = lambda handler, file: handler.serve(file, data=CONFIG[::-1])
    hub.put("org/name", files)
    with pytest.raises(errors.UnavailableError, match=r"config\.json came damaged 3 times"):
        pull()
    assert listed() == {}


@counts(5, 20)
def test_cuts_at_random_bytes_fetch_each_byte_once(hub, root, pull, remote, count):
    ends = [RNG.randrange(len(WEIGHTS) // count) for _ in range(count)]
    hub.put("org/name", model(remote, faults=map(cut, ends)))
    pull()
    check_whole(root)
    assert hub.sent == len(WEIGHTS) + len(CONFIG)


def test_a_failed_download_goes_on_where_it_stopped(hub, root, pull, listed, remote):
    files = hub.put("org/name", model(remote, faults=[cut(200_000), drop, drop, drop]))
    with pytest.raises(errors.UnavailableError):
        pull()
    assert listed() == {}
    pull()
    check_whole(root)
    assert hub.starts()[-1] == 200_000
    assert not files["model.safetensors"].faults


def test_a_part_that_was_damaged_on_disk_is_fetched_anew(hub, root, pull, remote):
    hub.put("org/name", model(remote, faults=[cut(200_000), drop, drop, drop]))
    with pytest.raises(errors.UnavailableError):
        pull()
    (part,) = root.glob("org/*/model.safetensors.part")
    part.write_bytes(bytes(200_000))
    pull()
    check_whole(root)


def test_the_hub_may_move_on_between_two_tries(hub, root, pull, remote):
    hub.put("org/name", model(remote, faults=[drop] * 3) | {"gone.json": b"{}"})
    hub.repos["org/name"]["model.safetensors"].faults.appendleft(cut(200_000))
    with pytest.raises(errors.UnavailableError):
        pull()
    hub.put("org/name", {"config.json": CONFIG, "model.safetensors": WEIGHTS[::-1]})
    pull()
    assert on_disk(root) == {
        "org/name/config.json": CONFIG,
        "org/name/model.safetensors": WEIGHTS[::-1],
    }


# --- refusals ------------------------------------------------------------------------------------


def test_a_missing_repository_revision_or_file_is_told(hub, pull, remote):
    with pytest.raises(errors.NotFoundError, match="no model org/other") as caught:
        pull("org/other")
    assert caught.value.param == "repo"
    hub.put("org/name", model(remote, always=lambda h, file: h.refuse(404, "EntryNotFound")))
    with pytest.raises(errors.NotFoundError, match="no such revision") as caught:
        pull(revision="v2")
    assert caught.value.param == "revision"
    with pytest.raises(errors.NotFoundError, match="is gone from the hub"):
        pull()


@pytest.mark.parametrize("code", [401, 403])
def test_a_gated_model_says_what_to_do(hub, pull, listed, remote, code):
    hub.put("org/name", model(remote, always=lambda h, file: h.refuse(code, "GatedRepo")))
    with pytest.raises(errors.ForbiddenError, match=r"is gated: accept its terms .* hub\.token"):
        pull()
    assert listed() == {}


def test_a_bad_token_is_told(hub, pull):
    hub.errors["org/name"] = lambda handler, _: handler.refuse(
        401, x_error_message="Invalid credentials in Authorization header"
    )
    with pytest.raises(errors.ForbiddenError, match="status 401: look at the token"):
        pull()
    assert len(hub.requests) == 1


def test_a_hub_that_is_away_is_asked_a_few_times(hub, pull):
    hub.errors["org/name"] = status(503)
    with pytest.raises(errors.UnavailableError, match="status 503") as caught:
        pull(wait_s=3.5)
    assert caught.value.retryable
    assert len(hub.requests) == 4
    hub.errors["org/name"] = status(429, retry_after="7")
    with pytest.raises(errors.UnavailableError, match="status 429") as caught:
        pull(wait_s=0)
    assert caught.value.retry_after_s == 7


def test_a_hub_that_cannot_be_reached_is_told(new_hub, pull):
    gone = new_hub()
    gone.close()
    with pytest.raises(
        errors.UnavailableError, match=r"cannot be reached \(ConnectError\)"
    ) as caught:
        pull(endpoint=gone.url)
    assert caught.value.retryable


@pytest.mark.parametrize(
    "body", [b"<html>", b"[]", b'{"x": 1}', b'{"id": "a/b", "siblings": [{}]}']
)
def test_what_is_no_hub_is_told(hub, pull, body):
    hub.errors["org/name"] = lambda handler, _: handler.send(200, body, {})
    with pytest.raises(errors.UnavailableError, match="no hub") as caught:
        pull()
    assert not caught.value.retryable


def test_a_hub_that_tells_no_hash_is_not_trusted(hub, pull):
    body = b'{"id": "org/name", "sha": "x", "siblings": [{"rfilename": "a.gguf", "size": 1}]}'
    hub.errors["org/name"] = lambda handler, _: handler.send(200, body, {})
    with pytest.raises(errors.UnavailableError, match="no hub"):
        pull()


def test_a_failure_names_no_path_of_this_machine(hub, root, pull, remote):
    hub.put("org/name", model(remote))
    root.mkdir()
    (root / "org").write_text("in the way")
    with pytest.raises(errors.InternalError, match="cannot be used: ") as caught:
        pull()
    assert str(root) not in str(caught.value)


# --- redirects -----------------------------------------------------------------------------------


def test_the_token_goes_to_the_hub_and_to_no_other_host(
    hub, new_hub, root, pull, remote, monkeypatch
):
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    elsewhere = new_hub()
    elsewhere.put("cdn/x", {"y": remote(WEIGHTS, faults=[cut(100_000)])})
    place = f"{elsewhere.url}/cdn/x/resolve/{'c0ffee' * 6}c0ff/y"
    redirect = lambda handler, file: handler.refuse(302, location=place)  # noqa: E731
    hub.put("org/name", model(remote, always=redirect))
    pull()
    check_whole(root)
    assert {headers["authorization"] for _, _, headers in hub.requests} == {"Bearer hf_canary"}
    assert elsewhere.starts() == [0, 100_000]
    for _, _, headers in elsewhere.requests:
        assert "hf_canary" not in str(headers)


# --- disk (20) -----------------------------------------------------------------------------------


def test_too_little_space_is_told_before_anything_comes(hub, root, pull, remote):
    hub.put("org/name", model(remote))
    free = shutil.disk_usage(root.parent).free
    with pytest.raises(errors.DiskFullError, match="GiB are to stay free, but the disk has only"):
        pull(reserve_bytes=free)
    assert hub.got() == []


def test_what_is_to_stay_free_does_whoever_fills_the_disk(hub, root, pull, remote, monkeypatch):
    hub.put("org/name", model(remote))
    disk = SimpleNamespace(free=1 << 30)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk)

    def another_fills_it(done, total, note=""):
        if done > 100_000:
            disk.free = 1 << 20

    with pytest.raises(errors.DiskFullError, match="2 MiB that are to stay free; what has come"):
        pull(report=another_fills_it, reserve_bytes=2 << 20)
    (part,) = root.glob("org/*/model.safetensors.part")
    assert 100_000 < part.stat().st_size < len(WEIGHTS)
    disk.free = 1 << 30
    pull(reserve_bytes=2 << 20)
    check_whole(root)


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.linux("a tmpfs")
def test_a_disk_that_runs_full_fails_the_job_and_keeps_what_came(
    hub, pull, listed, remote, small_disk
):
    hub.put("org/name", model(remote))
    filler = small_disk / "filler"

    def fill(done, total, note=""):
        if done > 100_000 and not filler.exists():
            free = shutil.disk_usage(small_disk).free
            filler.write_bytes(bytes(free - 50_000))

    with pytest.raises(errors.DiskFullError, match="is full; what has come is kept") as caught:
        pull(report=fill, root=str(small_disk))
    assert caught.value.code == "disk_full"
    (part,) = small_disk.glob("org/*/model.safetensors.part")
    kept = part.stat().st_size
    assert kept > 100_000
    filler.unlink()
    pull(root=str(small_disk))
    assert hub.starts()[-1] == kept
    check_whole(small_disk)


def test_any_full_disk_is_a_full_disk(hub, pull, listed, remote, monkeypatch):
    def full(*_):
        raise OSError(errno.EDQUOT, "Quota exceeded")

    monkeypatch.setattr(os, "fsync", full)
    hub.put("org/name", model(remote))
    with pytest.raises(errors.DiskFullError):
        pull()
    assert listed() == {}


# --- code in a repository (14) -------------------------------------------------------------------


class Bomb:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


FORBIDDEN = re.compile(r".*\.(py|pyc|bin|pt|pth|pkl|ckpt|msgpack|h5|so|sh|ipynb|npz|joblib)")


def payloads(trace):
    bomb = pickle.dumps(Bomb(trace))
    code = f"from pathlib import Path; Path({str(trace)!r}).touch()".encode()
    auto = b'{"auto_map": {"AutoModel": "modeling.Model"}, "model_file": "modeling.py"}'
    good = {"model.safetensors": b"weights", "config.json": CONFIG}
    return [
        {"pytorch_model.bin": bomb, "config.json": CONFIG},
        {"model.pt": bomb, "weights.ckpt": bomb},
        good | {"pytorch_model.bin": bomb},
        good | {"modeling.py": code, "config.json": auto},
        good | {"tokenization.py": code, "tokenizer_config.json": auto},
        good | {"__init__.py": code, "sitecustomize.py": code, "conftest.py": code},
        good | {"native.so": code, "setup.sh": code, "run.ipynb": code},
        good | {"training_args.bin": bomb, "optimizer.pt": bomb, "x.joblib": bomb},
        {"a-Q4_0.gguf": b"weights", "imatrix.dat": bomb, "x.npz": bomb, "load.pyc": code},
        good | {"folder/modeling.py": code, "folder/model.h5": bomb, "x.msgpack": bomb},
    ]


@pytest.mark.parametrize("number", range(10))
def test_code_in_a_repository_neither_comes_nor_runs(hub, root, tmp_path, pull, listed, number):
    trace = tmp_path / "trace"
    files = payloads(trace)[number]
    hub.put("org/name", files)
    has_safe_weights = any(name.endswith((".safetensors", ".gguf")) for name in files)
    if has_safe_weights:
        pull()
    else:
        with pytest.raises(errors.ModelUnusableError, match="pickle"):
            pull()
    assert bool(listed()) == has_safe_weights
    assert [path for path in on_disk(tmp_path) if FORBIDDEN.fullmatch(path)] == []
    assert not [path for _, path, _ in hub.requests if FORBIDDEN.fullmatch(path)]
    assert not trace.exists()


# --- names that lead elsewhere (15) --------------------------------------------------------------


def tree(folder):
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in folder.rglob("*")
    }


EVIL = [
    f"{climb}{name}"
    for climb in (
        "../",
        "../../",
        "a/../../",
        "/",
        "//",
        "..\\",
        "C:\\",
        "C:/",
        "a\\..\\..\\",
        "./",
    )
    for name in ("canary.json", "x/canary.json")
] + ["..", "x/..", "canary.json\0.json", "canary.json\n", "\udcff.json", "~/../canary.json"]


@pytest.mark.parametrize("name", EVIL)
def test_a_name_that_leads_elsewhere_refuses_the_model(hub, tmp_path, root, pull, name):
    name = name if name.strip().endswith(".json") else f"{name}.json"
    (tmp_path / "canary.json").write_text("mine")
    before = tree(tmp_path)
    hub.put("org/name", {"model.safetensors": b"w", name: b"evil"})
    for files in (None, ("*",)):
        try:
            pull(files=files)
        except errors.ModelUnusableError as error:
            assert "not safe" in error.message  # noqa: PT017
        outside = {path: data for path, data in tree(tmp_path).items() if "/models" not in path}
        assert outside == before
        assert not [path for path, data in on_disk(root).items() if data == b"evil"]


@pytest.mark.parametrize("link", ["org", "org/name", "part", "part/x", "part/x/a.json.part"])
def test_a_link_in_the_folder_leads_nowhere(hub, tmp_path, root, pull, link):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.json.part").write_bytes(b"mine")
    (outside / "a.json").write_bytes(b"mine")
    before = tree(outside)
    place = Place.of(root, "org/name", "org/name@main:")
    path = root / link if link.startswith("org") else place.partial / link[5:]
    path.parent.mkdir(parents=True)
    path.symlink_to(outside / "a.json.part" if link.endswith(".part") else outside)
    hub.put("org/name", {"x/a.json": b"evil", "model.safetensors": b"w"})
    with pytest.raises((errors.ForbiddenError, errors.InternalError)) as caught:
        pull(files=("x/*",))
    assert str(tmp_path) not in caught.value.message
    assert tree(outside) == before
