"""Which problems are sampled, and when more are."""

from __future__ import annotations

import pytest
from datasets import Dataset

from sgpo_core.config.base import ConfigError
from sgpo_core.data.problems import problems_of_iteration
from sgpo_core.rl.sampling import problems_of_round, problems_with_history, wants_more

T, F = True, False
SOME, NONE = [F, T], [F, F]


def problems(count: int) -> Dataset:
    rows = [{"id": f"p{i}", "prompt": "", "answer": "1", "reference": None, "domain": ""} for i in range(count)]
    return Dataset.from_list(rows)


@pytest.mark.parametrize(
    ("groups", "wanted", "done", "most", "more"),
    [
        ([SOME, NONE], 2, 1, 3, T),  # one of two
        ([SOME, SOME], 2, 1, 3, F),
        ([SOME, NONE, NONE, SOME], 2, 2, 3, F),  # over both rounds
        ([NONE] * 6, 2, 3, 3, F),  # the bound: a partial batch, not an endless round
        ([NONE, NONE], 2, 1, 1, F),
    ],
)
def test_wants_more(groups: list[list[bool]], wanted: int, done: int, most: int, more: bool) -> None:
    assert wants_more(groups, wanted, done, most) is more


def test_round_0_is_every_algorithm_s_and_later_ones_are_their_own() -> None:
    dataset = problems(20)
    first = problems_of_round(dataset, 5, seed=3, iteration=2, number=0)
    assert first == problems_of_iteration(dataset, 5, 3, 2)
    second, again, third = (problems_of_round(dataset, 5, 3, 2, n) for n in (1, 1, 2))
    assert second == again != third
    assert len({p.id for p in second}) == 5


def test_history_leaves_out_what_was_all_correct_in_the_pass_before() -> None:
    dataset = problems(6)

    def chosen(iteration: int, solved: set[str]) -> list[str]:
        def all_correct(earlier: int) -> dict[str, bool]:
            assert earlier < iteration
            return {name: name in solved for name in chosen(earlier, solved)}

        return [p.id for p in problems_with_history(dataset, 2, 7, iteration, all_correct)]

    everything = {f"p{i}" for i in range(6)}
    first = [chosen(i, set()) for i in (1, 2, 3)]
    assert [n for names in first for n in names] == [
        p.id for i in (1, 2, 3) for p in problems_of_iteration(dataset, 2, 7, i)
    ]
    assert {n for names in first for n in names} == everything
    # Two are solved: the second pass is iterations 4 and 5 with the other four, the third begins at 6.
    solved = {"p1", "p4"}
    assert {n for i in (4, 5) for n in chosen(i, solved)} == everything - solved
    assert set(chosen(6, solved)) <= everything - solved
    # Five are solved: one is left, too few for an iteration of two; all come again.
    assert {n for i in (4, 5, 6) for n in chosen(i, everything - {"p0"})} == everything


def test_history_needs_enough_problems() -> None:
    with pytest.raises(ConfigError, match=r"sampling\.problems=3"):
        problems_with_history(problems(2), 3, 0, 1, lambda _: {})
