"""What a run says of its first responses."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sgpo_core.config.algorithm import CreditSettings
from sgpo_core.types import Rollout
from tasks.rewards import warn_of_form
from tests.records import group, rollout

GOOD, BARE, CUT = (
    rollout(text="1. a\n2. so \\boxed{4}"),
    rollout(text="It is 4."),
    rollout(text="1. a", truncated=True),
)


@pytest.mark.parametrize(
    ("responses", "said"),
    [
        ([GOOD, GOOD, BARE, CUT], []),
        ([GOOD, CUT, CUT, CUT], ["3 of the first 4 responses were cut off at sampling.max_tokens=96"]),
        ([GOOD, BARE, BARE, CUT], ["2 of the first 3 complete responses are malformed (no_answer 2)"]),
        ([BARE, CUT, CUT], ["2 of the first 3 responses", "1 of the first 1 complete responses are malformed"]),
    ],
)
def test_warning_of_responses_that_earn_nothing(
    responses: list[Rollout], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr("tasks.rewards.get_run_logger", lambda: SimpleNamespace(warning=lines.append))
    groups = [group(0, responses)]
    warn_of_form(groups, CreditSettings(), 96)
    assert len(lines) == len(said)
    assert all(line.startswith(start) for line, start in zip(lines, said, strict=True))
    lines.clear()
    for other in (CreditSettings(scope="none"), CreditSettings(truncated="exclude", format_gate=False)):
        warn_of_form(groups, other, 96)
    assert lines == []
