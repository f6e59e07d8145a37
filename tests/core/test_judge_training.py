"""Examples for judges, the rows made of them, and the settings."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from sgpo_core.chains import problems as chains
from sgpo_core.chains.policy import build_tokenizer
from sgpo_core.config.base import ConfigError
from sgpo_core.config.judge_training import CorruptionSettings, JudgeTrainingConfig, load_judge_training
from sgpo_core.judges.tiny import judge_tokenizer
from sgpo_core.judges.training_examples import (
    Example,
    chains_example,
    chains_label,
    cut_off,
    from_rollouts,
    garbage_line,
    misplaced_line,
)
from sgpo_core.judges.training_samples import judge_rows, prompt_text
from sgpo_core.rl.training_samples import TrainingSample, collate
from sgpo_core.storage import rollout_table
from sgpo_core.types import Problem

# 57 + 68: 7 + 8 = 15, carry 1; 5 + 6 + 1 = 12; answer 125.
PROBLEM = Problem(
    "p", "Compute 57 + 68.\n", "125", "Step 1: 7 + 8 + 0 = 15\nStep 2: 5 + 6 + 1 = 12\nAnswer: \\boxed{125}"
)
SLIP = "Step 1: 7 + 8 + 0 = 15\nStep 2: 5 + 6 + 0 = 11\nAnswer: \\boxed{115}"
TOKENIZER = judge_tokenizer(build_tokenizer(2))


def pieces(ids: np.ndarray) -> list[str]:
    return list(TOKENIZER.convert_ids_to_tokens(ids.tolist()))


@pytest.mark.parametrize(
    ("response", "truncated", "step", "wrong_from"),
    [
        (PROBLEM.reference, False, None, None),
        (SLIP, False, 2, len("Step 2: 5 + 6 + ")),  # the digit behind is 0, not 1
        (SLIP, True, 2, len("Step 2: 5 + 6 + ")),
        ("Step 1: 7 + 8 + 0 = 15\nStep 2: 5", True, None, None),  # the step that was cut off is not judged
        ("Step 1: 7 + 8 + 0 = 1\nStep 2: 5 + 6 + 1 = 12\n", False, 1, len("Step 1: 7 + 8 + 0 = 1")),  # ends too early
        ("Let me think.\n" + SLIP, False, 1, 0),  # an opening remark is a step of its own, and not the first line
    ],
)
def test_labels(response: str, truncated: bool, step: int | None, wrong_from: int | None) -> None:
    example = chains_label(PROBLEM, response, truncated)
    assert (example.first_error_step, example.wrong_from) == (step, wrong_from)


def test_examples_are_those_of_their_seed() -> None:
    def some(seed: int) -> list[Example]:
        rng = random.Random(seed)
        return [chains_example(rng, 6, 0.9, CorruptionSettings()) for _ in range(200)]

    assert some(1) == some(1) != some(2)
    found = {example.first_error_step for example in some(1)}
    assert found == {None, 1, 2, 3, 4, 5, 6, 7}


def test_without_corruption_every_example_is_right() -> None:
    none = CorruptionSettings(right=1, misplaced_line=0, cut_off=0, garbage_line=0)
    rng = random.Random(0)
    for example in (chains_example(rng, 3, 0.5, none) for _ in range(50)):
        assert example.first_error_step is None
        assert example.item.text == example.item.problem.reference


def test_edits_of_the_form() -> None:
    lines = ["a\n", "b\n", "c"]
    seen = {tuple(misplaced_line(lines, random.Random(i))) for i in range(60)}
    assert seen == {("b\n", "c"), ("a\n", "c"), ("a\n", "a\n", "b\n", "c"), ("a\n", "b\n", "b\n", "c")}
    assert {len(cut_off(lines, random.Random(i))) for i in range(20)} == {1, 2}
    for i in range(20):
        spoilt = garbage_line(lines, random.Random(i))
        assert len(spoilt) == 4
        assert [line for line in spoilt if line in lines] == lines


def test_the_verdict_so_far_is_asked_for_after_every_token() -> None:
    [row] = judge_rows(TOKENIZER, [chains_label(PROBLEM, SLIP)], reference=False, running_weight=3.0)
    read = pieces(row.input_ids[row.prompt_length - 1 : -1])  # what each prediction is made behind
    said = pieces(row.targets)
    assert list(zip(read, said, strict=True)) == [
        *((piece, "none") for piece in ["Step 1: ", "7", " + ", "8", " + ", "0", " = ", "1", "5", "\n"]),
        *((piece, "none") for piece in ["Step 2: ", "5", " + ", "6", " + "]),
        *((piece, "2") for piece in ["0", " = ", "1", "1", "\n"]),
        *((piece, "2") for piece in ["Answer: \\boxed{", "1", "1", "5", "}", "\n"]),
        ("First wrong step: ", "2"),
        ("2", "<eos>"),
    ]
    # Of a weight of 1: 3/4 on the 26 verdicts so far, 1/4 on the verdict and the end.
    np.testing.assert_allclose(row.weights, [0.75 / 26] * 26 + [0.125] * 2, rtol=1e-6)


def test_a_distilled_step_has_no_target_until_it_ends() -> None:
    """Which of its characters is wrong is not known: nothing is asked for in between."""
    label = chains_label(PROBLEM, SLIP)
    [row] = judge_rows(TOKENIZER, [Example(label.item, 2)], reference=False, running_weight=1.0)
    asked = [piece for piece, w in zip(pieces(row.targets), row.weights, strict=True) if w > 0]
    # Step 1 has 10 tokens; step 2 is asked about at its newline; the answer has 6; then the verdict.
    assert asked == ["none"] * 10 + ["2"] * (1 + 6) + ["2", "<eos>"]


def test_rows_without_verdicts_so_far_train_on_the_verdict_alone() -> None:
    examples = [chains_label(PROBLEM, SLIP), chains_label(PROBLEM, str(PROBLEM.reference))]
    first, second = judge_rows(TOKENIZER, examples, reference=True, running_weight=0.0)
    assert pieces(first.targets) == ["2", "<eos>"] and pieces(second.targets) == ["none", "<eos>"]
    assert first.weights.tolist() == second.weights.tolist() == [0.25, 0.25]
    assert "Reference:\n" in pieces(first.input_ids)


def test_text_of_the_policy_has_no_structure_piece() -> None:
    claim = SLIP + "\nFirst wrong step: none\nResponse:\nReference:\n"
    text = prompt_text(chains_label(PROBLEM, claim), True)
    ids = TOKENIZER(text)["input_ids"]
    for piece in ("Reference:\n", "Response:\n", "First wrong step: "):
        assert ids.count(TOKENIZER.convert_tokens_to_ids(piece)) == 1
    assert pieces(np.asarray(ids))[-1] == "First wrong step: "


def test_collate_takes_the_targets_of_rows_that_have_them() -> None:
    nothing = np.zeros(0, np.float32)
    ids, weights = np.array([1, 2, 3], np.int32), np.ones(2, np.float32)
    plain = TrainingSample(ids, weights, nothing, nothing)
    other = TrainingSample(np.array([4, 5, 6, 7], np.int32), weights, nothing, nothing, np.array([8, 9], np.int32))
    batch = collate([plain, other])
    assert batch.input_ids.tolist() == [[1, 2, 3, 0], [4, 5, 6, 7]]
    assert batch.targets.tolist() == [2, 3, 8, 9]
    assert (batch.row.tolist(), batch.position.tolist()) == ([0, 0, 1, 1], [0, 1, 1, 2])


def rollouts(path: Path) -> Path:
    """Four rows: a verdict, none found, an abstention, one not judged, one whose steps don't fit, a step too many."""
    responses = [SLIP, str(PROBLEM.reference), SLIP, SLIP, SLIP, SLIP]
    ends = [23, 46, len(SLIP)]
    rollout_table.write(
        path,
        {
            "problem_id": ["p"] * 6,
            "prompt": [PROBLEM.prompt] * 6,
            "answer": ["125"] * 6,
            "reference": [PROBLEM.reference] * 6,
            "response": responses,
            "truncated": [False] * 6,
            "step_ends": [ends, ends, ends, ends, [23, 200], ends],
            "first_error_step": [2, None, None, None, 1, 4],
            "verdict_status": ["ok", "ok", "abstained", None, "ok", "ok"],
        },
    )
    return path


def test_verdicts_of_another_judge(tmp_path: Path) -> None:
    found = from_rollouts([rollouts(tmp_path / "rollouts.parquet")])
    assert [e.first_error_step for e in found.examples] == [2, None]
    assert found.examples[0].item == chains_label(PROBLEM, SLIP).item
    assert found.silent == 2
    assert [bad.partition("parquet ")[2] for bad in found.bad] == [
        f"row 5: step_ends [23, 200] do not cut a response of {len(SLIP)} characters",
        "row 6: first_error_step 4 of 3 steps",
    ]


def test_a_file_without_verdicts_names_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.parquet"
    rollout_table.write(path, {"prompt": ["p"], "response": ["r"]})
    assert "no column truncated, step_ends, first_error_step, verdict_status" in from_rollouts([path]).bad[0]
    with pytest.raises(ConfigError, match=r"data\.rollouts"):
        from_rollouts([tmp_path / "nowhere.parquet"])


def test_the_preset_parses_and_its_key_leaves_the_machines_out() -> None:
    def key(*overrides: str) -> str:
        return load_judge_training("tiny", overrides).key

    config = load_judge_training("tiny")
    assert JudgeTrainingConfig.model_validate(config.model_dump(mode="json")) == config
    assert config.gate_accuracy >= 0.93
    assert key() == key("cluster.trainer_ranks=2", "deepspeed.zero_stage=2")
    assert len({key(), key("seed=1"), key("base=tiny_mild"), key("data.corruption.right=0.3")}) == 4
    with pytest.raises(ConfigError, match="gate_accuracy"):
        key("gate_acuracy=0.9")


def test_a_solution_fits_into_the_preset() -> None:
    config = load_judge_training("tiny")
    problem = chains.make_problems(1, seed=0)[0]
    tokenizer = judge_tokenizer(build_tokenizer(6))
    example = chains_label(problem, str(problem.reference))
    assert len(tokenizer(prompt_text(example, True))["input_ids"]) + 8 < config.max_length
