"""The job that converts: whole models or none, whatever happens on the way."""

from __future__ import annotations

import asyncio
import errno
import json
import resource
import shutil
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest
from attrs import define, evolve, field, frozen
from gguf import GGUFWriter
from lmx_mlx_backend.conversion import Conversions, ConvertSpec
from lmx_mlx_backend.convert import shards, space, work
from safetensors import SafetensorError

from lmx_kernel import errors
from lmx_kernel.interfaces import JobState
from lmx_kernel.jobs.jobs import Jobs
from lmx_kernel.types import ModelCard

WIDTH, HEADS, HIDDEN, LETTERS = 64, 2, 128, 258
ROOM = {"size_bytes": 0, "reserve_bytes": 0}


def write_file(path: Path, layers: int = 1) -> Path:
    """Write a random llama as GGUF."""
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(layers)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(byte) for byte in plain] + [chr(256 + n) for n in range(256 - len(plain))]
    writer.add_token_list(["<s>", "</s>", *letters])
    writer.add_token_types([3, 3] + [1] * 256)
    writer.add_token_merges([])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    shapes = {"token_embd": (LETTERS, WIDTH), "output_norm": (WIDTH,)}
    for layer in range(layers):
        square, wide = (WIDTH, WIDTH), (HIDDEN, WIDTH)
        shapes |= {
            f"blk.{layer}.{name}": shape
            for name, shape in {
                "attn_q": square, "attn_k": square, "attn_v": square, "attn_output": square,
                "ffn_gate": wide, "ffn_up": wide, "ffn_down": wide[::-1],
                "attn_norm": (WIDTH,), "ffn_norm": (WIDTH,),
            }.items()
        }  # fmt: skip
    dice = np.random.default_rng(1)
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", dice.normal(0, 0.1, shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@define
class StubKernel:
    """Knows models by their ids."""

    cards: dict[str, ModelCard] = field(factory=dict)

    def find(self, name: str) -> ModelCard:
        try:
            return self.cards[name]
        except KeyError:
            raise errors.ModelNotFoundError(f"no {name}", param="model") from None


@define
class Told:
    """What a job reports; ``first`` is set by the first of it."""

    lines: list = field(factory=list)
    first: asyncio.Event = field(factory=asyncio.Event)

    def __call__(self, done, total=None, note=""):
        self.lines.append((done, total, note))
        self.first.set()


@pytest.fixture
def root(tmp_path):
    """The folder that gets the new models."""
    return tmp_path / "home" / "models"


@pytest.fixture
def plain(llama):
    """A folder of plain weights, with a tokenizer that transformers can read."""
    path = llama / "tokenizer_config.json"
    texts = json.loads(path.read_text())
    path.write_text(json.dumps(texts | {"eos_token": texts["eos_token"]["content"]}))
    return llama


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """A small file and one that takes a while."""
    folder = tmp_path_factory.mktemp("files")
    return write_file(folder / "small.gguf"), write_file(folder / "large.gguf", layers=300)


@pytest.fixture
def kernel(plain, card_of, files):
    """A kernel with a model of plain weights, one of two bits, a small file and a large one."""
    weights = evolve(card_of(plain), id="maker/plain")
    card = evolve(weights, format="gguf", backend="gguf", quantization="F32")
    small = evolve(card, id="maker/small@F32", path=files[0])
    large = evolve(card, id="large", path=files[1])
    twin = evolve(large, id="twin/large")
    packed = evolve(weights, id="packed", quantization="2-bit")
    damaged = evolve(weights, id="damaged", problem="it is cut off")
    return StubKernel({card.id: card for card in (weights, small, large, twin, packed, damaged)})


@pytest.fixture
def kind(kernel, root):
    return Conversions(kernel, root, reserve_bytes=0)


@pytest.fixture
async def jobs(kind, tmp_path):
    """All jobs there are, of this kind."""

    async def nothing():
        """There is no catalogue to look again."""

    jobs = Jobs(tmp_path / "jobs.sqlite", lambda event: None, nothing)
    await jobs.open([kind])
    yield jobs
    await jobs.close()


def children():
    return [
        child
        for child in psutil.Process().children()
        if "lmx_mlx_backend.convert" in str(child.cmdline())
    ]


def left_in(root):
    """Return all that lies in the folder, hidden or not."""
    return sorted(path.name for path in root.rglob("*")) if root.exists() else []


async def until(condition):
    while not condition():
        await asyncio.sleep(0.005)


async def test_a_file_becomes_a_folder_that_is_recognised(kind, root, card_of):
    told = Told()
    result = await kind.run(ConvertSpec("maker/small@F32"), told)
    assert result["model"] == "small-F32-mlx"
    assert result["bytes"] > 0
    card = card_of(root / "small-F32-mlx")
    assert (card.problem, card.architecture) == (None, "llama")
    assert told.lines[-1][0] == told.lines[-1][1] > 0
    assert [path.name for path in root.iterdir()] == ["small-F32-mlx"]


@pytest.mark.parametrize(("bits", "told_bits"), [(4, 4), (8, 8), (None, 4)])
async def test_plain_weights_are_quantised(kind, root, card_of, kernel, bits, told_bits):
    told = Told()
    result = await kind.run(ConvertSpec("maker/plain", bits, "me/new"), told)
    assert result["model"] == "me/new"
    card = card_of(root / "me" / "new")
    assert (card.problem, card.quantization) == (None, f"{told_bits}-bit")
    assert result["bytes"] == card.size_bytes < kernel.find("maker/plain").size_bytes / 2
    assert card.capabilities == {"chat", "completion"}
    assert told.lines[-1][0] == told.lines[-1][1] > 0
    assert [path.name for path in (root / "me").iterdir()] == ["new"]


async def test_what_was_quantised_answers(kind, root, card_of):
    from lmx_mlx_backend.worker import lmx_open_engine

    from lmx_kernel.engine import Sequence
    from lmx_kernel.types import EngineSpec, LoadOptions, Sampling

    await kind.run(ConvertSpec("maker/plain", 8, "new"), Told())
    options = LoadOptions(context_length=64, parallel=1, cache_tokens=64)
    spec = EngineSpec(card=card_of(root / "new"), options=options, settings={"device": "cpu"})
    engine = lmx_open_engine(spec, lambda *_: None)
    engine.add(Sequence(id=1, tokens=[5, 6, 7], produced=0, sampling=Sampling(seed=1)))
    outputs = [output for _ in range(5) for output in engine.step().outputs]
    engine.close()
    assert outputs


@pytest.mark.parametrize(
    ("spec", "problem", "param"),
    [
        (ConvertSpec("nope"), errors.ModelNotFoundError, "model"),
        (ConvertSpec("damaged"), errors.ModelUnusableError, "model"),
        (ConvertSpec("packed", 4), errors.InvalidRequestError, "model"),
        (ConvertSpec("large", 4), errors.InvalidRequestError, "bits"),
        (ConvertSpec("maker/plain", 4, "../up"), errors.InvalidRequestError, "name"),
        (ConvertSpec("maker/plain", 4, "/etc/x"), errors.InvalidRequestError, "name"),
        (ConvertSpec("maker/plain", 4, "a/b/c"), errors.InvalidRequestError, "name"),
        (ConvertSpec("maker/plain", 4, ".hidden"), errors.InvalidRequestError, "name"),
        (ConvertSpec("maker/plain", 4, "a/.."), errors.InvalidRequestError, "name"),
        (ConvertSpec("maker/plain", 4, "x" * 201), errors.InvalidRequestError, "name"),
        (ConvertSpec("maker/plain", 4, ""), errors.InvalidRequestError, "name"),
    ],
)
async def test_what_cannot_be_is_told_before_a_job_begins(jobs, root, spec, problem, param):
    with pytest.raises(problem) as caught:
        await jobs.start("convert", spec)
    assert caught.value.param == param
    assert not jobs.select()
    assert left_in(root) == []


async def test_a_name_that_is_taken_is_left_alone(kind, root):
    (root / "taken").mkdir(parents=True)
    with pytest.raises(errors.ConflictError, match="taken already"):
        await kind.run(ConvertSpec("maker/plain", 4, "taken"), Told())
    assert left_in(root) == ["taken"]


async def test_equal_jobs_are_one(jobs):
    spec = ConvertSpec("large", name="new")
    first, second = await jobs.start("convert", spec), await jobs.start("convert", spec)
    assert first.id == second.id
    await jobs.cancel(first.id)


async def test_a_conversion_that_is_done_is_not_done_again(jobs, root):
    spec = ConvertSpec("maker/small@F32")
    first = await jobs.start("convert", spec)
    await until(lambda: jobs.get(first.id).state is JobState.DONE)
    assert await jobs.start("convert", spec) == jobs.get(first.id)
    shutil.rmtree(root / "small-F32-mlx")
    again = await jobs.start("convert", spec)
    assert again.id != first.id
    await until(lambda: jobs.get(again.id).state is JobState.DONE)


async def test_another_model_of_that_name_is_not_taken_for_the_one_that_was_made(jobs, root):
    spec = ConvertSpec("maker/small@F32", name="new")
    first = await jobs.start("convert", spec)
    await until(lambda: jobs.get(first.id).state is JobState.DONE)
    shutil.rmtree(root / "new")
    other = await jobs.start("convert", ConvertSpec("maker/plain", 4, "new"))
    await until(lambda: jobs.get(other.id).state is JobState.DONE)
    again = await jobs.start("convert", spec)
    await until(lambda: jobs.get(again.id).state is JobState.FAILED)
    assert jobs.get(again.id).error.code == "conflict"


async def test_two_models_may_want_one_name(jobs, root):
    first = await jobs.start("convert", ConvertSpec("large"))
    await until(lambda: jobs.get(first.id).done > 0)
    second = await jobs.start("convert", ConvertSpec("twin/large"))
    third = await jobs.start("convert", ConvertSpec("twin/large", name="large-mlx"))
    assert second.id == third.id != first.id
    assert jobs.get(second.id).state is JobState.QUEUED
    await jobs.cancel(second.id)
    late = await jobs.start("convert", ConvertSpec("twin/large"))
    await until(lambda: jobs.get(late.id).state is JobState.FAILED)
    assert jobs.get(late.id).error.code == "conflict"
    assert jobs.get(first.id).state is JobState.DONE
    assert [path.name for path in root.iterdir()] == ["large-mlx"]


async def test_a_name_that_was_taken_meanwhile_is_left_alone(kind, root):
    told = Told()
    task = asyncio.ensure_future(kind.run(ConvertSpec("large", name="new"), told))
    await told.first.wait()
    (root / "new").mkdir()
    with pytest.raises(errors.ConflictError, match="new already"):
        await task
    assert left_in(root) == ["new"]


async def test_a_cancelled_conversion_leaves_nothing(jobs, root):
    job = await jobs.start("convert", ConvertSpec("large", name="me/new"))
    await until(lambda: jobs.get(job.id).done > 0)
    (child,) = children()
    assert left_in(root)
    assert (await jobs.cancel(job.id)).state is JobState.CANCELLED
    assert not child.is_running()
    assert left_in(root) == []


async def test_a_killed_conversion_begins_anew(kind, root, card_of):
    told = Told()
    spec = ConvertSpec("large", name="new")
    task = asyncio.ensure_future(kind.run(spec, told))
    await told.first.wait()
    (child,) = children()
    child.send_signal(signal.SIGKILL)
    with pytest.raises(errors.InternalError, match="killed by SIGKILL"):
        await task
    assert not (root / "new").exists()
    await kind.run(spec, Told())
    assert card_of(root / "new").problem is None
    assert [path.name for path in root.iterdir()] == ["new"]


def test_a_folder_that_wants_to_run_code_is_refused(plain, tmp_path):
    config = json.loads((plain / "config.json").read_text()) | {"model_file": "evil.py"}
    (plain / "config.json").write_text(json.dumps(config))
    (plain / "evil.py").write_text("raise SystemExit")
    order = {"source": str(plain), "target": str(tmp_path / "part" / "model"), "bits": 4, **ROOM}
    with pytest.raises(errors.ModelUnusableError):
        work.quantize_folder(order, Told())


def test_code_beside_the_weights_is_left_behind(plain, tmp_path):
    (plain / "model.py").write_text("raise SystemExit")
    target = tmp_path / "part" / "model"
    order = {"source": str(plain), "target": str(target), "bits": 4, **ROOM}
    work.quantize_folder(order, Told())
    assert (target / "config.json").exists()
    assert not list(target.glob("*.py"))


def test_a_full_disk_is_told_as_one(plain, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("mlx_lm.convert", full)
    order = {"source": str(plain), "target": str(tmp_path / "part" / "model"), "bits": 4, **ROOM}
    with pytest.raises(errors.DiskFullError):
        work.quantize_folder(order, Told())


def test_a_disk_that_is_full_in_the_middle_of_a_file_is_told_as_one(files, tmp_path, monkeypatch):
    """The library that writes says so only in its message."""

    def fail(*_, **__):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(shards, "save_file", fail)
    order = {"source": str(files[0]), "target": str(tmp_path / "model"), "bits": None, **ROOM}
    with pytest.raises(errors.DiskFullError):
        work.convert_file(order, Told())
    assert left_in(tmp_path) == []


def test_an_error_of_the_system_is_found_in_what_the_library_says(tmp_path):
    """With the library's own message: no file may have more than a few bytes here."""
    writer = shards.ShardWriter(tmp_path)
    writer.add("weight", np.zeros(99999, np.float32))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large") as caught:
            writer.finish()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG


def test_a_library_that_does_not_say_that_the_disk_is_full(plain, tmp_path, monkeypatch):
    def fail(*_, **__):
        monkeypatch.setattr(space.shutil, "disk_usage", lambda path: Usage(4096))
        raise RuntimeError("[write] Unable to write 4096 bytes to file.")

    monkeypatch.setattr("mlx_lm.convert", fail)
    order = {"source": str(plain), "target": str(tmp_path / "part" / "model"), "bits": 4, **ROOM}
    with pytest.raises(errors.DiskFullError):
        work.quantize_folder(order, Told())


@frozen
class Usage:
    """What a disk says."""

    free: int


async def test_a_conversion_leaves_the_reserve_free(kernel, root):
    kind = Conversions(kernel, root, reserve_bytes=1 << 60)
    for spec in (ConvertSpec("maker/small@F32"), ConvertSpec("maker/plain", 4)):
        with pytest.raises(errors.DiskFullError, match="are to stay free"):
            await kind.run(spec, Told())
    assert left_in(root) == []


def test_a_conversion_stops_where_others_fill_the_disk_meanwhile(files, tmp_path, monkeypatch):
    def fill(done, total, note):
        monkeypatch.setattr(space.shutil, "disk_usage", lambda path: Usage(99))

    order = {"source": str(files[0]), "target": str(tmp_path / "model"), "bits": None}
    with pytest.raises(errors.DiskFullError, match="are to stay free"):
        work.convert_file(order | {"size_bytes": 0, "reserve_bytes": 100}, fill)
    assert left_in(tmp_path) == []


def test_a_folder_with_byte_order_marks_is_quantised(plain, tmp_path):
    for file in plain.glob("*.json"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    target = tmp_path / "part" / "model"
    order = {"source": str(plain), "target": str(target), "bits": 4, **ROOM}
    work.quantize_folder(order, Told())
    assert (target / "config.json").exists()
