"""States on disk: what is written is read again, or is a miss, whatever happened to the files."""

from __future__ import annotations

import errno
import os
import random
import signal
import stat
import subprocess
import sys
import time
import zlib

import pytest

from lmx_kernel.engine import STATE_TOKENS
from lmx_kernel.prefixes import entry, folder, store
from lmx_kernel.prefixes.keys import (
    PART_TOKENS,
    extend_keys,
    first_key,
    model_identity,
    part_keys,
    whole_key,
)
from lmx_kernel.prefixes.store import PrefixStore

STATE = bytes(range(256)) * 8
KEY = b"k" * 16
MODEL = "acme/model"


@pytest.fixture
def warnings():
    return []


@pytest.fixture
def opener(tmp_path, warnings):
    def open_store(model=MODEL, identity=b"i" * 16, limit_bytes=1 << 20, ttl_s=0.0):
        return PrefixStore.open(
            tmp_path / "prefixes",
            model,
            identity,
            limit_bytes=limit_bytes,
            ttl_s=ttl_s,
            warn=warnings.append,
        )

    return open_store


@pytest.fixture
def opened(opener):
    return opener()


def path_of(opened, index=0, key=KEY):
    return opened.folder / folder.entry_name(index, key)


def key_of(number):
    return number.to_bytes(16, "big")


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


# --- files


def test_a_state_is_read_again_and_by_the_next_worker(opener, warnings):
    first = opener()
    assert KEY not in first
    assert first.write(0, KEY, STATE)
    for opened in (first, opener()):
        assert KEY in opened
        assert opened.read(0, KEY) == STATE
    assert opener(identity=b"j" * 16).read(0, KEY) is None
    assert not warnings


def test_only_the_owner_may_read_what_is_stored(opened):
    opened.write(0, KEY, STATE)
    for path, mode in ((opened.root, 0o700), (opened.folder, 0o700), (path_of(opened), 0o600)):
        assert stat.S_IMODE(path.stat().st_mode) == mode


def replace_by_link(path):
    target = path.with_name("elsewhere")
    path.rename(target)
    path.symlink_to(target)


def replace_by_pipe(path):
    path.unlink()
    os.mkfifo(path)


def replace_by_next_version(path):
    data = path.read_bytes()
    path.write_bytes(data[:8] + (entry.VERSION + 1).to_bytes(2, "little") + data[10:])


def replace_by_huge(path):
    """Put a file there whose header is right, of more bytes than there is memory."""
    data, size = path.read_bytes(), 1 << 40
    head = entry._HEADER.pack(entry.MAGIC, entry.VERSION, len(MODEL), 0, KEY, 0, size, 0)
    name = data[entry.HEADER_BYTES : entry.HEADER_BYTES + len(MODEL)]
    path.write_bytes(head + entry._CHECKSUM.pack(zlib.crc32(head + name)) + name)
    os.truncate(path, entry.HEADER_BYTES + len(MODEL) + size)


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "foreign": lambda path: path.write_bytes(b"\x89PNG" * 100),
    "cut in its header": lambda path: os.truncate(path, 20),
    "cut in its state": lambda path: os.truncate(path, path.stat().st_size - 1),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "of a later version": replace_by_next_version,
    "of another key": lambda path: entry.write_entry(path, MODEL, 0, b"o" * 16, STATE),
    "huge": replace_by_huge,
    "a symbolic link": replace_by_link,
    "a pipe": replace_by_pipe,
    **{
        f"flipped at {place}": lambda path, place=place: flip(path, place)
        for place in (0, 9, 11, 14, 20, 33, 41, 45, 50, -1, -1000)
    },
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_a_miss_and_is_deleted_with_one_warning(opened, warnings, damage):
    opened.write(0, KEY, STATE)
    damage(path_of(opened))
    assert opened.read(0, KEY) is None
    assert KEY not in opened
    assert not os.path.lexists(path_of(opened))
    assert len(warnings) == 1
    assert path_of(opened).name in warnings[0]
    assert opened.write(0, KEY, STATE)
    assert opened.read(0, KEY) == STATE


@pytest.mark.parametrize("seed", range(20))
def test_no_flipped_bit_is_ever_read_as_a_state(opened, seed):
    opened.write(0, KEY, STATE)
    path, dice = path_of(opened), random.Random(seed)
    flip(path, dice.randrange(path.stat().st_size))
    assert opened.read(0, KEY) is None


def test_what_a_link_points_to_is_left_alone(opened, opener, tmp_path, warnings):
    other = tmp_path / "mine"
    other.write_bytes(STATE)
    path_of(opened).symlink_to(other)
    assert KEY not in opener()
    assert other.read_bytes() == STATE
    assert not os.path.lexists(path_of(opened))
    assert len(warnings) == 1


def test_a_root_that_is_a_link_is_refused(opener, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "prefixes").symlink_to(tmp_path / "there")
    with pytest.raises(OSError, match="symbolic link"):
        opener()


def test_foreign_files_are_deleted_and_folders_are_left_alone(opened, opener, warnings):
    (opened.folder / "notes.txt").write_text("x")
    (opened.folder / "folder").mkdir()
    opener()
    assert [path.name for path in opened.folder.iterdir()] == ["folder"]
    assert any("notes.txt" in warning for warning in warnings)


WRITER = """
import sys
from pathlib import Path
from lmx_kernel.prefixes.store import PrefixStore
options = {"limit_bytes": 1 << 30, "ttl_s": 0, "warn": print}
store = PrefixStore.open(Path(sys.argv[1]), "m", b"i" * 16, **options)
print("ready", flush=True)
number = 0
while True:
    number += 1
    store.write(0, (number % 8).to_bytes(16, "big"), bytes([number % 8]) * 3_000_000)
"""


@pytest.mark.parametrize(
    "delay_s",
    [0.003, 0.011, *(pytest.param(n / 2500, marks=pytest.mark.full) for n in range(50))],
)
def test_a_writer_that_is_killed_leaves_whole_files_only(opener, tmp_path, warnings, delay_s):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "prefixes")], stdout=subprocess.PIPE
    )
    process.stdout.readline()
    time.sleep(delay_s)  # the place of the kill; each is right
    process.send_signal(signal.SIGKILL)
    process.communicate()
    opened = opener()
    for number in range(8):
        state = opened.read(0, key_of(number))
        assert state is None or state == bytes([number]) * 3_000_000
    assert not warnings
    for path in opened.folder.glob(".*"):
        os.utime(path, (0, 0))
    opened.make_room()
    assert not list(opened.folder.glob(".*"))


# --- limits


def test_what_was_not_used_for_longest_goes_first(opener):
    opened = opener(limit_bytes=20 * (len(STATE) + 100))
    for number in range(40):
        opened.write(0, key_of(number), STATE)
        os.utime(path_of(opened, 0, key_of(number)), (number, number))
        if number == 10:
            opened.touch([(0, key_of(0))])
    total = sum(path.stat().st_size for path in opened.folder.iterdir())
    assert total <= opened.limit_bytes
    assert opened.read(0, key_of(0)) == STATE
    assert opened.read(0, key_of(39)) == STATE
    assert opened.read(0, key_of(1)) is None
    assert key_of(1) not in opened


def test_the_end_of_a_chain_goes_before_its_beginning(opener):
    opened = opener(limit_bytes=1 << 20)
    blocks = [(index, key_of(index)) for index in range(10)]
    for index, key in blocks:
        opened.write(index, key, STATE)
    opened.touch(blocks)
    folder.evict(opened.root, 5 * (len(STATE) + 200), 0)
    left = sorted(found.index for found in folder.entries_of(opened.folder))
    assert left == list(range(len(left)))
    assert 0 < len(left) < 10


def test_models_share_the_limit(opener):
    one, other = opener("one", b"1" * 16), opener("other", b"2" * 16, limit_bytes=12_000)
    one.write(0, KEY, STATE * 4)
    os.utime(path_of(one), (1, 1))
    other.write(0, KEY, STATE * 3)
    other.make_room()
    assert one.read(0, KEY) is None
    assert other.read(0, KEY) == STATE * 3


def test_what_was_not_used_for_long_is_deleted(opener):
    opened = opener(ttl_s=3600.0)
    opened.write(0, KEY, STATE)
    opened.write(1, key_of(1), STATE)
    os.utime(path_of(opened), (time.time() - 3700,) * 2)
    opened.make_room()
    assert KEY not in opened
    assert key_of(1) in opened


def test_a_full_disk_stops_writing_with_one_warning(opened, warnings, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(entry.os, "write", full)
        patch.setattr(store, "PAUSE_S", 0.0)
        assert not opened.write(0, KEY, STATE)
        assert not opened.write(1, KEY, STATE)
    assert list(opened.folder.iterdir()) == []
    assert len(warnings) == 1
    assert "No space left" in warnings[0]
    assert opened.write(0, KEY, STATE)
    with monkeypatch.context() as patch:
        patch.setattr(entry.os, "write", full)
        assert not opened.write(1, key_of(1), STATE)
    assert not opened.write(1, key_of(1), STATE)  # for a while it is not tried


def test_clearing_one_model_and_all(opener):
    for number, model in enumerate(("one", "two", "three")):
        opener(model, bytes([number]) * 16).write(0, KEY, STATE)
    root = opener("four", b"4" * 16).root
    assert [used.model for used in folder.usage(root)] == ["one", "three", "two"]
    assert folder.usage(root)[0].entries == 1
    assert folder.clear(root, "one") > len(STATE)
    assert [used.model for used in folder.usage(root)] == ["three", "two"]
    folder.clear(root)
    assert folder.usage(root) == []


def test_a_worker_whose_store_was_cleared_begins_anew(opened):
    opened.write(0, KEY, STATE)
    folder.clear(opened.root)
    assert opened.read(0, KEY) is None
    assert opened.write(0, KEY, STATE)
    assert opened.read(0, KEY) == STATE


# --- keys


def keys(tokens, identity=b"i", space=""):
    found: list[bytes] = []
    extend_keys(found, first_key(identity, space), tokens, len(tokens) // STATE_TOKENS)
    return found


def test_equal_beginnings_have_equal_keys_and_nothing_else_has():
    tokens = list(range(STATE_TOKENS * 4))
    found = keys(tokens)
    assert keys(tokens + [5] * STATE_TOKENS)[:4] == found
    other = tokens.copy()
    other[STATE_TOKENS] += 1
    assert keys(other)[0] == found[0]
    assert not set(keys(other)[1:]) & set(found)
    assert not set(keys(tokens, identity=b"j")) & set(found)
    assert not set(keys(tokens, space="somebody")) & set(found)


def test_tokens_may_be_any_integers():
    pictures = [-(1 + (number << 144)) for number in range(STATE_TOKENS)]
    assert keys(pictures) == keys(pictures)
    assert keys(pictures) != keys([*pictures[:-1], -1])


def test_a_model_is_known_by_its_files_and_its_engine(tmp_path):
    file = tmp_path / "m.gguf"
    file.write_bytes(b"header")
    os.utime(file, (5, 5))
    known = model_identity([file], "engine 1")
    assert model_identity([file], "engine 1") == known
    found = {known, model_identity([file], "engine 2")}
    os.utime(file, (6, 6))
    found.add(model_identity([file], "engine 1"))
    file.write_bytes(b"Header")
    os.utime(file, (5, 5))
    found.add(model_identity([file], "engine 1"))
    file.rename(tmp_path / "n.gguf")
    found.add(model_identity([tmp_path / "n.gguf"], "engine 1"))
    assert len(found) == 5


def test_a_block_is_found_by_its_beginning(opener):
    tokens, before = list(range(STATE_TOKENS)), b"b" * 16
    parts = part_keys(before, tokens)
    assert len(parts) == STATE_TOKENS // PART_TOKENS - 1
    assert parts == part_keys(before, tokens[:-1])
    assert not {*parts} & {*part_keys(b"c" * 16, tokens), *part_keys(before, [9, *tokens[1:]])}
    assert part_keys(before, tokens[: PART_TOKENS - 1]) == []
    opened = opener()
    opened.note(3, KEY, 5, parts)
    opened.write(3, KEY, STATE)
    for again in (opened, opener()):
        assert [again.key_of(part) for part in parts] == [KEY] * len(parts)
        assert again.read(3, KEY) == STATE
        again.touch([(3, KEY)])
    again.remove([(3, KEY)])
    assert again.key_of(parts[0]) is None
    assert not list(again.folder.iterdir())


def test_a_file_that_was_given_another_name_is_not_what_that_says(opener, warnings):
    """Of another beginning, or of none."""
    opened = opener()
    parts, others = (part_keys(key * 16, range(STATE_TOKENS)) for key in (b"b", b"c"))
    for said in (others, []):
        opened.note(3, KEY, 5, parts)
        opened.write(3, KEY, STATE)
        (path,) = opened.folder.iterdir()
        path.rename(opened.folder / folder.entry_name(3, KEY, said))
        opened = opener()
        assert opened.read(3, KEY) is None
        assert not list(opened.folder.iterdir())
    assert len(warnings) == 2


def test_the_key_of_a_whole_state_is_that_of_its_tokens_and_of_nothing_else():
    tokens = [number % 300 - 5 for number in range(400)]
    changed = [*tokens[:100], 7, *tokens[101:]]
    first = first_key(b"i" * 16, "")
    known: list[bytes] = []
    keys = [whole_key(known, first, tokens, length) for length in (400, 128, 127, 64, 5)]
    assert len({*keys, *known, first}) == len(keys) + len(known) + 1
    assert keys == [whole_key([], first, tokens[:n], n) for n in (400, 128, 127, 64, 5)]
    assert whole_key([], first, changed, 400) != keys[0]
    assert whole_key([], first_key(b"i" * 16, "x"), tokens, 400) != keys[0]
