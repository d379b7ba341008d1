"""What a machine can do at most, and what a run takes of its memory."""

import math

import numpy as np
import torch

from fldet.benchmark.clock import Marks
from fldet.benchmark.rates import measured_rates
from fldet.engine.memory import peak_memory

CPU = torch.device("cpu")


def test_rates_are_measured_once():
    rates = measured_rates(CPU, torch.float32)
    assert set(rates) == {"conv", "matmul"}
    assert all(0.1 < rate < 1e5 for rate in rates.values())
    assert measured_rates(CPU, torch.float32) == rates


def test_peak_is_that_of_the_run_not_what_remains():
    def run():
        first = np.ones(40 * 2**17)  # 40 MiB
        first = None  # noqa: F841
        return np.ones(2**17)

    peak, words = peak_memory(run, CPU)
    if math.isnan(peak):
        assert "not measured" in words
    else:
        assert 38 < peak < 60
        assert "rise of the resident memory" in words


def test_without_the_files_of_linux_the_function_runs_all_the_same(monkeypatch, tmp_path):
    monkeypatch.setattr("fldet.engine.memory._CLEAR", tmp_path / "missing" / "clear_refs")
    calls = []
    peak, words = peak_memory(lambda: calls.append(1), CPU)
    assert math.isnan(peak)
    assert "not measured" in words
    assert calls == [1]


def test_laps_are_between_marks():
    marks = Marks(CPU)
    marks.mark()
    marks.mark()
    laps = marks.laps_ms()
    assert len(laps) == 2
    assert all(lap >= 0 for lap in laps)
