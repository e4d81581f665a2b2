"""Models with sliding windows: nothing goes on from tokens that have left the window."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from lmx_kernel.engine import STATE_TOKENS

U32, F32, STRING = 4, 6, 8
WIDTH, HIDDEN, LAYERS, VOCABULARY, WINDOW = 64, 128, 6, 300, 96


@pytest.fixture
def windowed(tiny, tmp_path: Path) -> Path:
    """A model with random weights of which five of six layers have a window."""
    own = {
        "block_count": LAYERS,
        "context_length": 1024,
        "embedding_length": WIDTH,
        "feed_forward_length": HIDDEN,
        "attention.head_count": 2,
        "attention.head_count_kv": 1,
        "attention.key_length": WIDTH // 2,
        "attention.value_length": WIDTH // 2,
        "attention.sliding_window": WINDOW,
    }
    tiny.metadata = {k: v for k, v in tiny.metadata.items() if not k.startswith("llama.")}
    tiny.metadata["general.architecture"] = (STRING, "gemma3")
    tiny.metadata |= {f"gemma3.{key}": (U32, value) for key, value in own.items()}
    tiny.metadata["gemma3.attention.layer_norm_rms_epsilon"] = (F32, 1e-6)
    half = WIDTH // 2
    shapes = {"token_embd": (WIDTH, VOCABULARY), "output_norm": (WIDTH,)}
    for layer in range(LAYERS):
        shapes |= {
            f"blk.{layer}.{name}": shape
            for name, shape in {
                **dict.fromkeys(("attn_norm", "post_attention_norm"), (WIDTH,)),
                **dict.fromkeys(("ffn_norm", "post_ffw_norm"), (WIDTH,)),
                **dict.fromkeys(("attn_q_norm", "attn_k_norm"), (half,)),
                **dict.fromkeys(("attn_q", "attn_output"), (WIDTH, WIDTH)),
                **dict.fromkeys(("attn_k", "attn_v"), (WIDTH, half)),
                **dict.fromkeys(("ffn_gate", "ffn_up"), (WIDTH, HIDDEN)),
                "ffn_down": (HIDDEN, WIDTH),
            }.items()
        }
    dice, tiny.tensors = random.Random(3), {}
    for name, shape in shapes.items():
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        numbers = [dice.gauss(0, 0.15) if len(shape) > 1 else 1.0 for _ in range(count)]
        tiny.tensors[f"{name}.weight"] = (shape, 0, struct.pack(f"<{count}f", *numbers))
    return tiny.write(tmp_path / "windowed.gguf")


def tokens_of(seed: int, count: int) -> list[int]:
    dice = random.Random(seed)
    return [1] + [dice.randrange(3, 300) for _ in range(count - 1)]


WHOLE = tokens_of(1, 500)
CUT = [*WHOLE[:300], 7, 8, 9]


def open_windowed(open_tiny, path: Path):
    return open_tiny(context=1000, cache=2048, path=path)


def start(driver, number: int, tokens: list[int]) -> None:
    driver.add(number, tokens)
    while not driver.tokens[number]:
        driver.step()


def use_all_cells(driver) -> None:
    """Let others take the cells that have left the windows."""
    for number in range(50, 56):
        start(driver, number, tokens_of(number, 500))
        driver.engine.remove(number)


def park_all(driver) -> None:
    driver.engine.remove(1)
    while driver.engine._prefixes.park_oldest():
        pass


@pytest.mark.parametrize("lose", [park_all, use_all_cells])
def test_a_prompt_that_leaves_another_before_its_window_gets_its_own_text(
    open_tiny, windowed, lose
) -> None:
    expected = open_windowed(open_tiny, windowed).answer(CUT, 24)
    driver = open_windowed(open_tiny, windowed)
    start(driver, 1, WHOLE)
    lose(driver)
    driver.add(2, CUT)
    assert driver.run(2, count=24) == [expected]


def test_a_prompt_that_goes_on_from_the_end_is_not_computed_again(open_tiny, windowed) -> None:
    longer = [*WHOLE, *tokens_of(2, 30)]
    expected = open_windowed(open_tiny, windowed).answer(longer, 24)
    driver = open_windowed(open_tiny, windowed)
    start(driver, 1, WHOLE)
    driver.add(2, longer)
    assert driver.run(2, count=24) == [expected]
    assert driver.cached(2) == len(WHOLE)


def test_blocks_that_are_whole_serve_every_beginning(open_tiny, windowed) -> None:
    one, other = (open_windowed(open_tiny, windowed) for _ in range(2))
    start(one, 1, WHOLE)
    whole = WHOLE[: len(WHOLE) // STATE_TOKENS * STATE_TOKENS]
    starts = range(0, len(whole), STATE_TOKENS)
    states = [one.engine.states.export_block(1, start) for start in starts]
    assert other.engine.states.import_blocks(whole, "", 0, [bytearray(s) for s in states])
    for tokens, cached in ((WHOLE, len(whole)), (CUT, 300)):
        number = len(tokens)
        other.add(number, tokens)
        answer = other.run(number, count=24)
        assert answer == [open_windowed(open_tiny, windowed).answer(tokens, 24)]
        assert other.cached(number) == cached


def test_blocks_that_are_not_whole_any_more_are_not_exported(open_tiny, windowed) -> None:
    driver = open_windowed(open_tiny, windowed)
    start(driver, 1, WHOLE)
    assert driver.engine.states.export_block(1, 0) is not None
    use_all_cells(driver)
    numbers = iter(range(56, 100))  # how far the first goes on beside others depends on the time
    while driver.engine.states.export_block(1, 0) is not None:
        number = next(numbers)
        start(driver, number, tokens_of(number, 500))
        driver.engine.remove(number)
    assert driver.engine.states.computed(1) > len(WHOLE)
