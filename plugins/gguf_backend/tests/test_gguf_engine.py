"""The engine as its user sees it: tokens in, tokens out, whatever else is going on."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import numpy as np
import pytest

from lmx_kernel.errors import ContextOverflowError, InvalidRequestError, ModelUnusableError
from lmx_kernel.types import EngineSpec, LoadOptions, ModelCard, Sampling

SEEDED = Sampling(temperature=0.9, seed=42)
COLD_SPACES = itertools.count()  # the engine is shared by the tests, so no space is used twice


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
    driver.add(8, tokens, cache_space=f"cold {next(COLD_SPACES)}")
    driver.run(8, count=12)
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
            secrets[number] = str(dice.randrange(10**7, 10**8))  # a guess of the model is no other
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


def test_a_prompt_larger_than_the_cache_fails_alone(open_tiny) -> None:
    driver = open_tiny(context=512, parallel=2, cache=256)
    assert driver.engine.limits.context_length <= driver.engine.limits.cache_tokens
    with pytest.raises(ContextOverflowError):
        driver.add(1, tokens_of(1, driver.engine.limits.cache_tokens + 1))
    assert len(driver.answer(tokens_of(2, 100), 5)) == 5


def test_native_calls_check_their_arguments(tiny_driver) -> None:
    """Each of these would abort the process."""
    from lmx_gguf_backend.context import Piece

    context = tiny_driver.engine._context
    wrong = [
        lambda: context.compute([Piece(0, [1] * 513, 0, 0)]),
        lambda: context.compute([Piece(0, [300], 0, 0)]),
        lambda: context.compute([Piece(4, [1], 0, 0)]),
        lambda: context.compute([Piece(0, [1], -1, 0)]),
        lambda: context.compute([Piece(n % 4, [1], n // 4, 1) for n in range(9)]),
        lambda: context.compute([Piece(0, [1], 0, 2)]),
        lambda: context.compute([Piece(0, [1], 0, -1)]),
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


@pytest.mark.parametrize(
    "options", [{"parallel": 0}, {"parallel": 193}, {"cache": 0}, {"cache": 1 << 32}]
)
def test_impossible_options_are_refused(open_tiny, options: dict) -> None:
    with pytest.raises(InvalidRequestError):
        open_tiny(**options)


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
