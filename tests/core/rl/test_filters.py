"""Which responses are filtered out of the update: by correctness alone."""

from __future__ import annotations

from sgpo_core.rl.filters import filtered_out, is_mixed

T, F = True, False
ALL, SOME, NONE = [T, T], [F, T], [F, F]


def test_is_mixed() -> None:
    assert [is_mixed(g) for g in (ALL, SOME, NONE, [])] == [F, T, F, F]
    assert [is_mixed(g) for g in ([T, None], [F, None], [T, None, F])] == [F, F, T]  # grading failed: not known


def test_filtered_out() -> None:
    groups = [ALL, SOME, NONE, SOME]
    assert filtered_out(groups, "none", 1) == [[F, F]] * 4
    assert filtered_out(groups, "mixed", 9) == [[T, T], [F, F], [T, T], [F, F]]
    assert filtered_out(groups, "mixed", 1) == [[T, T], [F, F], [T, T], [T, T]]  # no more than one round's worth
    assert filtered_out(groups, "correct", 1) == [[F, F], [T, F], [T, T], [T, F]]
