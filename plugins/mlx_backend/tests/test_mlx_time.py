"""What takes long because the model is large is not taken for stuck."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import pytest
from lmx_mlx_backend import model as loading

from lmx_kernel.engine import LongSteps


def test_the_pulse_changes_within_a_step(driver, wrap_module) -> None:
    """A running stream and each piece of a prompt beside it are computations of their own."""
    pulses: list[int] = []

    def computed(module, tokens, cache):
        if threading.current_thread() is threading.main_thread():  # another builds what comes next
            pulses.append(driver.engine.pulse())
        return module(tokens, cache=cache)

    driver.add(0, [0, *range(2, 20)])
    driver.step()
    driver.step()
    driver.add(1, [0, *range(2, 150)])
    wrap_module(driver.engine, computed)
    driver.step()
    assert len(pulses) > 1
    assert len(set(pulses)) == len(pulses)
    assert isinstance(driver.engine, LongSteps)


def test_a_gpu_cannot_be_asked(driver) -> None:
    driver.engine._steps.ahead = True
    assert driver.engine.pulse() is None


def test_a_large_model_may_take_longer_to_be_built(models, open_model, monkeypatch) -> None:
    allowed: list[float] = []

    @contextmanager
    def deadline(seconds, work):
        allowed.append(seconds)
        yield

    monkeypatch.setattr(loading, "deadline", deadline)
    size = (models("llama") / "model.safetensors").stat().st_size
    monkeypatch.setattr(loading, "SLOW_BYTES_S", size / 1000)  # as if it were a thousand seconds'
    open_model()
    assert allowed == pytest.approx([loading.PATIENCE_S + 1000] * 2)
