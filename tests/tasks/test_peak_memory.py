"""Memory by arithmetic against what a process takes, with a model of 135M parameters on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import run_module


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_rank_takes_what_is_computed(tmp_path: Path, dtype: str) -> None:
    """Within 15 %, and no more when it is set up for another run: the model of before goes first. What is freed goes
    back to the system at once: otherwise the most that a process has had says little about the most that it has
    used."""
    at_once = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "DS_ACCELERATOR": "cpu"}
    done = run_module("tests.peak_memory", dtype, home=tmp_path, **at_once)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second, computed, _ = done.stdout.splitlines()[-1].split()
    assert float(computed) == pytest.approx(float(first), rel=0.15)
    assert float(second) < 1.1 * float(first)
