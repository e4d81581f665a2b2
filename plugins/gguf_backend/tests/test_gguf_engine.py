"""The engine as its user sees it: tokens in, tokens out, whatever else is going on."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from lmx_kernel.engine import Engine, Sequence, Tokenizer
from lmx_kernel.errors import ContextOverflowError, InvalidRequestError, ModelUnusableError
from lmx_kernel.types import EngineSpec, LoadOptions, ModelCard, Sampling

SEEDED = Sampling(temperature=0.9, seed=42)


def tokens_of(seed: int, count: int, vocabulary: int = 300) -> list[int]:
    dice = random.Random(seed)
    return [1] + [dice.randrange(3, vocabulary) for _ in range(count - 1)]


def chat(engine, text: str) -> list[int]:
    prompt = f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
    return engine.tokenizer.encode(prompt, add_special=True, parse_special=True)


def text_of(engine, tokens: list[int]) -> str:
    return b"".join(engine.tokenizer.token_bytes[token] for token in tokens).decode()


def same_start(a: list[int], b: list[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y), len(a))


# --- the real model


def test_is_an_engine(demo_engine) -> None:
    assert isinstance(demo_engine, Engine)
    assert demo_engine.limits.context_length == 2048
    assert demo_engine.limits.max_sequences == 8
    tokenizer: Tokenizer = demo_engine.tokenizer
    assert tokenizer.end_ids


def test_greedy_text_is_sane(demo) -> None:
    answer = demo.answer(chat(demo.engine, "What is the capital of France?"), 9)
    assert text_of(demo.engine, answer).startswith("The capital of France is Paris.")


def test_a_batch_of_eight(demo) -> None:
    names = "France Paris Italy Rome Japan Tokyo Germany Berlin England London Russia Moscow"
    words = f"{names} Egypt Cairo Greece Athens".split()
    countries = dict(zip(words[::2], words[1::2], strict=True))
    for number, country in enumerate(countries):
        demo.add(number, chat(demo.engine, f"What is the capital of {country}?"))
    answers = demo.run(*range(8), count=8)
    right = sum(
        city in text_of(demo.engine, answer)
        for city, answer in zip(countries.values(), answers, strict=True)
    )
    assert right >= 6  # a small model errs on its own; a mixed-up batch would get none


def test_seeded_text_is_the_same_alone_and_among_others(demo) -> None:
    """Near-ties may differ between batch sizes, so most of the text must be equal, not all."""
    prompts = [chat(demo.engine, f"Tell me about the number {n}.") for n in range(4)]
    alone = [demo.answer(prompt, 16, sampling=SEEDED) for prompt in prompts]
    for number, prompt in enumerate(prompts):
        demo.add(number, prompt, sampling=SEEDED)
    together = demo.run(*range(4), count=16)
    same = [same_start(a, b) for a, b in zip(alone, together, strict=True)]
    assert sum(same) >= 24, same
    assert len({tuple(answer) for answer in together}) > 1


def test_log_probabilities(demo) -> None:
    prompt = chat(demo.engine, "What is the capital of France?")
    demo.add(1, prompt, logprobs=5)
    demo.run(1, count=6)
    details = [d for step in demo.steps for output in step.outputs for d in output.logprobs]
    for token, detail in zip(demo.tokens[1], details, strict=True):
        numbers = [number for _, number in detail.top]
        assert len(numbers) == 5
        assert numbers == sorted(numbers, reverse=True)
        assert detail.top[0] == (token, pytest.approx(detail.chosen))
        assert 0 < np.exp(numbers).sum() <= 1.0001
    assert np.exp(details[1].chosen) > 0.5


def test_log_probabilities_ignore_sampling(demo) -> None:
    prompt = chat(demo.engine, "What is the capital of France?")
    biased = Sampling(temperature=0, seed=1, logit_bias={50: 100.0})
    demo.add(1, prompt, logprobs=1, sampling=biased)
    demo.run(1, count=1)
    detail = demo.steps[-1].outputs[0].logprobs[0]
    assert demo.tokens[1] == [50]
    assert detail.top[0][0] != 50
    assert detail.chosen < detail.top[0][1] - 1


def test_penalties_change_the_text(demo) -> None:
    prompt = demo.engine.tokenizer.encode(
        "ha ha ha ha ha ha ha ha", add_special=True, parse_special=False
    )
    plain = demo.answer(prompt, 12)
    penalised = demo.answer(
        prompt, 12, sampling=Sampling(temperature=0, seed=1, presence_penalty=20)
    )
    assert len(set(plain)) < 6
    assert len(set(penalised)) == 12


def assert_same_but_for_near_ties(driver, warm: int, cold: int) -> None:
    """Two greedy answers part only where both tokens were about equally likely.

    Rows that are computed in other groups differ by up to 1 in their logits (ENGINES-GGUF.md, 3).
    """
    at = same_start(driver.tokens[warm], driver.tokens[cold])
    if at < len(driver.tokens[warm]):
        details = [o.logprobs[0] for step in driver.steps for o in step.outputs if o.id == warm]
        likely = dict(details[at].top)
        assert likely.get(driver.tokens[cold][at], -99) > details[at].top[0][1] - 1.0, at


def run_warm_and_cold(driver, tokens: list[int]) -> None:
    """Answer as it comes (7), and without any help from kept prefixes (8)."""
    driver.add(7, tokens, logprobs=5)
    driver.run(7, count=12)
    prefixes, driver.engine._prefixes = driver.engine._prefixes, None
    try:
        driver.add(8, tokens)
        driver.run(8, count=12)
    finally:
        driver.engine._prefixes = prefixes
    assert driver.cached(8) == 0


def test_a_follow_up_computes_only_what_is_new(demo) -> None:
    first = chat(demo.engine, "Name three rivers. " * 10)
    answer = demo.answer(first, 12)
    run_warm_and_cold(demo, first + answer + chat(demo.engine, "And three lakes."))
    assert demo.cached(7) >= len(first) + 11
    assert_same_but_for_near_ties(demo, 7, 8)


def test_a_parked_prefix_gives_the_same_text(demo) -> None:
    first = chat(demo.engine, "List the months of the year. " * 12)
    answer = demo.answer(first, 8)
    for seed in range(4):
        demo.answer(tokens_of(seed, 200, 40_000), 1)
    assert demo.engine.stats().details["parked_bytes"] > 0
    run_warm_and_cold(demo, first + answer + first)
    assert demo.cached(7) >= len(first) + 7
    assert_same_but_for_near_ties(demo, 7, 8)


@pytest.mark.parametrize("count", [24, pytest.param(1000, marks=pytest.mark.full)])
@pytest.mark.timeout(1800)
def test_no_cross_talk(demo, count: int) -> None:
    """Each of many interleaved prompts gets its own secret back, never a neighbour's; some are
    cancelled.
    """
    dice, secrets = random.Random(3), {}
    queue = list(range(count))
    wrong, active = [], {}
    while queue or active:
        while queue and len(active) < 6:
            number = queue.pop(0)
            secrets[number] = str(dice.randrange(1000, 9999))
            text = f"The password is {secrets[number]}. Repeat: the password is"
            demo.add(number, chat(demo.engine, text))
            active[number] = dice.choice([0, 14, 14, 14])
        demo.step()
        for number, wanted in list(active.items()):
            if len(demo.tokens[number]) >= wanted:
                demo.engine.remove(number)
                del active[number]
                said = text_of(demo.engine, demo.tokens[number]) if wanted else ""
                wrong += [o for m, o in secrets.items() if m != number and o in said]
    assert not wrong
    right = [secrets[n] in text_of(demo.engine, t) for n, t in demo.tokens.items() if len(t) >= 14]
    assert sum(right) > len(right) / 2


# --- the tiny model: joining, leaving, running out


def test_sequences_join_and_leave_between_steps(tiny_driver) -> None:
    prompts = [tokens_of(seed, 20) for seed in range(3)]
    alone = [tiny_driver.answer(prompt, 20) for prompt in prompts]
    tiny_driver.add(0, prompts[0])
    for _ in range(5):
        tiny_driver.step()
    tiny_driver.add(1, prompts[1])
    tiny_driver.add(2, prompts[2])
    for _ in range(5):
        tiny_driver.step()
    tiny_driver.engine.remove(1)
    assert len(tiny_driver.tokens[1]) < 20
    assert tiny_driver.run(0, 2, count=20) == [alone[0], alone[2]]
    tiny_driver.add(3, prompts[1])
    assert tiny_driver.run(3, count=20) == [alone[1]]


def test_progress_reaches_the_whole_prompt(tiny_driver) -> None:
    tiny_driver.add(1, tokens_of(1, 400))
    tiny_driver.run(1, count=2)
    reports = [p for step in tiny_driver.steps for p in step.progress]
    assert all(a.processed < b.processed for a, b in pairwise(reports))
    assert (reports[-1].processed, reports[-1].total, reports[-1].cached) == (400, 400, 0)


def test_an_equal_prompt_is_cached_but_for_its_last_token(tiny_driver) -> None:
    prompt = tokens_of(1, 100)
    first = tiny_driver.answer(prompt, 10)
    tiny_driver.add(2, prompt)
    assert tiny_driver.run(2, count=10)[0] == first
    assert tiny_driver.cached(2) == 99


def test_eight_at_once_compute_a_shared_prefix_once(open_tiny) -> None:
    driver = open_tiny(parallel=8, cache=4096)
    shared = tokens_of(1, 300)
    for number in range(8):
        driver.add(number, shared + tokens_of(50 + number, 10)[1:])
    driver.run(*range(8), count=3)
    assert [driver.cached(number) for number in range(8)] == [0] + [300] * 7


@pytest.mark.parametrize("row_s", [0.0001, 0.0039])
def test_candidates_of_one_prompt_compute_it_once(tiny_driver, row_s: float) -> None:
    tiny_driver.engine._budget.row_s = tiny_driver.engine._budget.tile_row_s = row_s
    for number in range(4):
        tiny_driver.add(number, tokens_of(1, 200), sampling=Sampling(seed=number, temperature=1.5))
    answers = tiny_driver.run(*range(4), count=8)
    assert [tiny_driver.cached(number) for number in range(4)] == [0, 199, 199, 199]
    assert len({tuple(answer) for answer in answers}) == 4


def test_who_waits_for_a_prefix_survives_its_cancel(tiny_driver) -> None:
    shared = tokens_of(1, 300)
    tiny_driver.add(1, [*shared, 5])
    tiny_driver.add(2, [*shared, 6])
    tiny_driver.step()
    tiny_driver.engine.remove(1)
    assert len(tiny_driver.run(2, count=4)[0]) == 4


def test_a_short_prompt_is_not_stuck_behind_a_long_one(open_tiny) -> None:
    driver = open_tiny(context=2048, cache=4096)
    driver.engine._budget.row_s = driver.engine._budget.tile_row_s = 0.0039  # 64 rows at most
    driver.add(1, tokens_of(1, 1500))
    driver.step()
    driver.add(2, tokens_of(2, 30))
    driver.run(2, count=1)
    assert not driver.tokens[1]


def test_a_cancel_in_prefill_leaves_nothing(tiny_driver) -> None:
    driver = tiny_driver
    driver.engine._budget.row_s = driver.engine._budget.tile_row_s = 0.0039
    driver.add(1, tokens_of(1, 500))
    driver.step()
    assert 0 < driver.engine.stats().cache_tokens_used < 500
    driver.engine.remove(1)
    assert driver.engine.stats().cache_tokens_used == 0
    driver.add(2, tokens_of(1, 500))
    driver.run(2, count=1)
    assert driver.cached(2) == 0


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0, seed=1),
        SEEDED,
        Sampling(seed=9, frequency_penalty=1.0, top_k=0),
    ],
)
def test_a_resumed_sequence_goes_on_undisturbed(tiny_driver, sampling: Sampling) -> None:
    prompt = tokens_of(1, 50)
    whole = tiny_driver.answer(prompt, 40, sampling=sampling)
    resumed = tiny_driver.answer(prompt + whole[:15], 25, produced=15, sampling=sampling)
    assert resumed == whole[15:]


def test_preempted_when_cells_run_out_and_continued_later(open_tiny) -> None:
    driver = open_tiny(context=512, parallel=2, cache=512)
    prompts = [tokens_of(4, 200), tokens_of(2, 200)]  # whose answers meet no near-tie
    expected = [driver.answer(prompt, 100) for prompt in prompts]
    driver.add(1, prompts[0])
    driver.add(2, prompts[1])
    while not (step := driver.step()).preempted:
        assert not step.failed
    assert step.preempted == (2,), "the younger one"
    assert driver.run(1, count=100)[0] == expected[0]
    done = driver.tokens[2]
    assert 10 < len(done) < 100
    assert done == expected[1][: len(done)]
    rest = driver.answer(prompts[1] + done, 100 - len(done), produced=len(done))
    assert done + rest == expected[1]


def test_a_prompt_larger_than_the_cache_fails_alone(open_tiny) -> None:
    driver = open_tiny(context=512, parallel=2, cache=256)
    assert driver.engine.limits.context_length <= driver.engine.limits.cache_tokens
    with pytest.raises(ContextOverflowError):
        driver.add(1, tokens_of(1, driver.engine.limits.cache_tokens + 1))
    assert len(driver.answer(tokens_of(2, 100), 5)) == 5


def test_a_sequence_ends_at_its_context_length(open_tiny) -> None:
    driver = open_tiny(context=64, cache=512)
    driver.add(1, tokens_of(1, 60))
    driver.add(2, tokens_of(2, 20))
    for _ in range(12):
        driver.step()
    assert len(driver.tokens[1]) == 5
    assert [failed[0] for step in driver.steps for failed in step.failed] == [1]
    assert len(driver.tokens[2]) == 12


def test_kept_prefixes_never_stand_in_the_way(open_tiny) -> None:
    driver = open_tiny(context=512, parallel=2, cache=512)
    for seed in range(12):
        assert len(driver.answer(tokens_of(seed, 300), 3)) == 3
    assert driver.engine.stats().cache_tokens_used <= 512


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"tokens": []}, InvalidRequestError),
        ({"tokens": [-1]}, InvalidRequestError),
        ({"tokens": [300]}, InvalidRequestError),
        ({"tokens": [1 << 40]}, InvalidRequestError),
        ({"tokens": [5] * 513}, ContextOverflowError),
        ({"produced": 99}, InvalidRequestError),
        ({"produced": -1}, InvalidRequestError),
        ({"logprobs": -1}, InvalidRequestError),
        ({"id": 1}, InvalidRequestError),
        ({"sampling": Sampling(logit_bias={300: 1.0})}, InvalidRequestError),
        ({"sampling": Sampling(temperature=float("nan"))}, InvalidRequestError),
    ],
)
def test_wrong_arguments_are_refused(tiny_driver, change: dict, error: type[Exception]) -> None:
    tiny_driver.add(1, [1, 5, 9])
    fields = {"id": 2, "tokens": [1, 5], "produced": 0, "sampling": SEEDED} | change
    with pytest.raises(error):
        tiny_driver.engine.add(Sequence(**fields))
    assert len(tiny_driver.run(1, count=5)[0]) == 5


def test_one_sequence_too_many_is_refused(tiny_driver) -> None:
    for number in range(4):
        tiny_driver.add(number, [1, number + 5])
    with pytest.raises(InvalidRequestError, match="4 sequences"):
        tiny_driver.add(4, [1, 5])
    tiny_driver.engine.remove(77)
    tiny_driver.engine.remove(0)
    tiny_driver.engine.remove(0)
    tiny_driver.add(4, [1, 5])
    tiny_driver.run(1, 2, 3, 4, count=3)


def test_more_logprobs_than_tokens(tiny_driver) -> None:
    tiny_driver.add(1, [1, 5], logprobs=100_000)
    tiny_driver.run(1, count=1)
    detail = tiny_driver.steps[-1].outputs[0].logprobs[0]
    assert np.exp([number for _, number in detail.top]).sum() == pytest.approx(1, abs=1e-3)
    assert len(detail.top) == 300


def test_native_calls_check_their_arguments(tiny_driver) -> None:
    """Each of these would abort the process."""
    from lmx_gguf_backend.context import Piece

    context = tiny_driver.engine._context
    wrong = [
        lambda: context.compute([Piece(0, [1] * 513, 0, False)]),
        lambda: context.compute([Piece(0, [300], 0, False)]),
        lambda: context.compute([Piece(4, [1], 0, False)]),
        lambda: context.compute([Piece(0, [1], -1, False)]),
        lambda: context.compute([Piece(n % 4, [1], n // 4, True) for n in range(5)]),
        lambda: context.compute([]),
        lambda: context.copy(0, 256, 5),
        lambda: context.copy(-1, 2, 5),
        lambda: context.drop(256),
        lambda: context.save(256, 1, 1),
    ]
    for call in wrong:
        with pytest.raises(ValueError, match="wrong argument"):
            call()


def test_a_bad_row_costs_only_its_own_sequence(tiny_driver) -> None:
    tiny_driver.add(1, tokens_of(1, 20))
    tiny_driver.add(2, tokens_of(2, 20))
    expected = tiny_driver.answer(tokens_of(1, 20), 10)
    for _ in range(3):
        tiny_driver.step()
    [_, second] = tiny_driver.engine._running
    second.done += 3  # a gap, which the library refuses
    second.tokens += [5, 5, 5]
    step = tiny_driver.step()
    assert [number for number, _ in step.failed] == [2]
    assert tiny_driver.run(1, count=10)[0] == expected


def test_numbers_that_are_not_finite_fail_their_sequence(tiny, tmp_path: Path, open_tiny) -> None:
    shape, kind, data = tiny.tensors["token_embd.weight"]
    row = bytes.fromhex("0000c07f") * shape[0]  # NaN, for token 10 only
    tiny.tensors["token_embd.weight"] = (
        shape,
        kind,
        data[: 10 * len(row)] + row + data[11 * len(row) :],
    )
    driver = open_tiny(path=tiny.write(tmp_path / "nan.gguf"))
    driver.add(1, [1, 5])
    driver.add(2, [1, 10])
    step = driver.step()
    assert [number for number, _ in step.failed] == [2]
    assert "not finite" in step.failed[0][1]
    assert len(driver.run(1, count=8)[0]) == 8


@pytest.mark.parametrize(
    "options", [{"parallel": 0}, {"parallel": 193}, {"cache": 0}, {"cache": 1 << 32}]
)
def test_impossible_options_are_refused(open_tiny, options: dict) -> None:
    with pytest.raises(InvalidRequestError):
        open_tiny(**options)


def test_an_idle_engine_steps(tiny_driver) -> None:
    step = tiny_driver.step()
    assert (step.outputs, step.progress, step.preempted, step.failed) == ((), (), (), ())


def test_a_quantised_cache_works(open_tiny) -> None:
    driver = open_tiny(cache_type="q8_0")
    assert len(driver.answer(tokens_of(1, 100), 10)) == 10


def test_stats(tiny_driver) -> None:
    assert tiny_driver.engine.stats().cache_tokens_used == 0
    tiny_driver.answer(tokens_of(1, 50), 5)
    assert tiny_driver.engine.stats().cache_tokens_used == 54
    assert tiny_driver.engine.stats().details["kept_prefixes"] == 1


def test_trimming_forgets_prefixes_and_disturbs_nothing(demo) -> None:
    """Hot ones and parked ones, one of them shared with a stream that goes on."""
    prompt = chat(demo.engine, "Count the stars. " * 12)
    demo.answer(prompt, 8)
    for seed in range(4):
        demo.answer(tokens_of(seed, 200, 40_000), 1)
    assert demo.engine.stats().details["parked_bytes"] > 0
    demo.add(1, [*prompt, *chat(demo.engine, "Go on.")])
    demo.add(2, [*prompt, *chat(demo.engine, "Again.")])
    while len(demo.tokens[1]) < 4:
        demo.step()
    demo.engine.trim()
    stats = demo.engine.stats()
    assert (stats.details["kept_prefixes"], stats.details["parked_bytes"]) == (0, 0)
    assert stats.cache_tokens_used > len(prompt), "what runs keeps its cells"
    assert len(demo.run(1, 2, count=12)) == 2
    demo.engine.trim()
    assert demo.engine.stats().cache_tokens_used == 0
    demo.add(3, prompt)
    demo.run(3, count=1)
    assert demo.cached(3) == 0


def test_a_stream_goes_on_undisturbed_when_its_prefix_is_trimmed(tiny_driver) -> None:
    prompt = tokens_of(1, 100)
    whole = tiny_driver.answer(prompt, 40)
    tiny_driver.add(1, prompt)
    while len(tiny_driver.tokens[1]) < 10:
        tiny_driver.step()
    assert tiny_driver.cached(1) == 99
    tiny_driver.engine.trim()
    assert tiny_driver.run(1, count=40) == [whole]


def test_load_failures_carry_the_librarys_reason(tiny, tmp_path: Path) -> None:
    from lmx_gguf_backend.worker import lmx_open_engine

    del tiny.tensors["blk.1.attn_q.weight"]
    path = tiny.write(tmp_path / "broken.gguf")
    card = ModelCard(id="broken", backend="gguf", path=path, format="gguf", architecture="llama",
                     size_bytes=1, context_length=512)  # fmt: skip
    options = LoadOptions(context_length=512, parallel=1, cache_tokens=512)
    with pytest.raises(ModelUnusableError, match=r"blk\.1\.attn_q") as error:
        lmx_open_engine(EngineSpec(card=card, options=options), lambda *_: None)
    assert str(tmp_path) not in error.value.message


def test_loading_reports_progress(tiny_path: Path) -> None:
    from lmx_gguf_backend.worker import lmx_open_engine

    card = ModelCard(id="tiny", backend="gguf", path=tiny_path, format="gguf",
                     architecture="llama", size_bytes=1, context_length=512)  # fmt: skip
    options = LoadOptions(context_length=512, parallel=1, cache_tokens=512)
    shares: list[float] = []
    engine = lmx_open_engine(
        EngineSpec(card=card, options=options), lambda share, *_: shares.append(share)
    )
    engine.close()
    engine.close()
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
