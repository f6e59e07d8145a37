"""A few bits of a run's folder; `make faults` turns a thousand, also of other flows."""

from __future__ import annotations

from pathlib import Path

from tests.faults.flips import FOUND, SILENT, flips
from tests.helpers import SMALL, start_from


def test_no_bit_turns_unnoticed(policy: str) -> None:
    from flows.online import online

    result = online("tiny", [*SMALL, *start_from(policy), "experiment=flips", "iterations=2"])
    files, outcomes = flips(Path(result["run_dir"]).parent, 140, seed=0)
    assert len(files) >= 6 and not {kind for kind, outcome in outcomes if outcome == SILENT}
    assert {kind for kind, outcome in outcomes if outcome == FOUND} == set(files)
