"""Judging (who finds the first wrong step) and credit (what it is worth)."""

from __future__ import annotations

import time
from typing import Any

from sgpo_core import rollout_table
from sgpo_core.advantages import group_advantages
from sgpo_core.answers import Outcome
from sgpo_core.credit import CreditRule, Judged, group_credit, must_judge
from sgpo_core.files import read_json
from sgpo_core.judge import JUDGES
from sgpo_core.rollout_table import group_slices
from sgpo_core.segmentation import segment, tokens_before, well_formed
from sgpo_core.types import Problem, Verdict, VerdictStatus
from tasks.data import decode
from tasks.run import Run, phase


class JudgeFailed(RuntimeError):
    """The judge abstained too often for too long; the message says what to look at."""


@phase("judge")
def judge(run: Run, iteration: int) -> None:
    """Verdicts for the responses that credit asks about, group by group."""
    began, decide = time.monotonic(), JUDGES[run.config.judge.name]
    path = run.paths.rollouts(iteration)
    table = rollout_table.read(
        path, ["problem_id", "group", "prompt", "answer", "reference", "response", "truncated", "outcome_reward"]
    )
    steps = [segment(text) for text in table["response"]]
    verdicts: list[Verdict | None] = [None] * len(steps)
    for rows in group_slices(table["group"]):
        asked = must_judge([r == 1.0 for r in table["outcome_reward"][rows]], run.config.algorithm.credit.scope)
        for i, wanted in zip(range(rows.start, rows.stop), asked, strict=True):
            if wanted:
                whole = steps[i][:-1] if table["truncated"][i] else steps[i]  # the cut-off step is dropped
                problem = Problem(table["problem_id"][i], table["prompt"][i], table["answer"][i], table["reference"][i])
                # Nothing to read is not an abstention: such a response has RTS 0.
                verdicts[i] = decide(problem, whole, problem.reference) if whole else Verdict(None)
    rollout_table.add(
        path,
        {
            "step_ends": [[s.end for s in cut] for cut in steps],
            "first_error_step": [v.first_error_step if v else None for v in verdicts],
            "verdict_status": [v.status.value if v else None for v in verdicts],
            "verdict_reason": [v.reason if v else None for v in verdicts],
        },
    )
    run.metrics["judge/seconds"] = time.monotonic() - began


@phase("credit")
def assign_credit(run: Run, iteration: int) -> None:
    """RTS, shaped reward, advantage and loss mask of every response."""
    path, settings = run.paths.rollouts(iteration), run.config.algorithm
    table = rollout_table.read(path)
    rule = CreditRule(**settings.credit.model_dump(exclude={"rts_unit", "mask_after_error"}))
    judged = [_judged(run, table, i) for i in range(len(table["group"]))]
    credits, advantages = [], []
    for rows in group_slices(table["group"]):
        group = group_credit(judged[rows], rule)
        credits += group
        advantages += group_advantages(group, **settings.advantage.model_dump())
    rollout_table.add(
        path,
        {
            "rts": [c.rts for c in credits],
            "shaped_reward": [c.shaped_reward for c in credits],
            "neutral": [c.neutral for c in credits],
            "advantage": advantages,
            "loss_mask": [
                _loss_mask(run, table, i, credit.neutral, advantage)
                for i, (credit, advantage) in enumerate(zip(credits, advantages, strict=True))
            ],
        },
    )


def _verdict(table: dict[str, list[Any]], i: int) -> Verdict | None:
    status = table["verdict_status"][i]
    return None if status is None else Verdict(table["first_error_step"][i], VerdictStatus(status))


def _judged(run: Run, table: dict[str, list[Any]], i: int) -> Judged:
    """One row as credit needs it, its lengths in the unit of `algorithm.credit.rts_unit`."""
    text, ends, truncated, verdict = (
        table["response"][i],
        table["step_ends"][i],
        table["truncated"][i],
        _verdict(table, i),
    )
    correct, graded = table["outcome_reward"][i] == 1.0, table["grade"][i] != Outcome.ERROR
    parsable = truncated or table["grade"][i] != Outcome.UNPARSABLE
    if verdict is None:
        return Judged(correct, graded)
    whole = max(0, len(ends) - truncated)
    prefix = whole if verdict.first_error_step is None else verdict.first_error_step - 1
    reference = segment(table["reference"][i] or "")
    lengths = (prefix, len(ends), len(reference) or None, 1)
    if run.config.algorithm.credit.rts_unit == "tokens":
        before_last = _tokens_of_steps(run, table, i, len(ends) - 1)
        own = len(table["token_ids"][i]) - (not truncated)  # without end-of-sequence
        known = len(run.tokenizer(table["reference"][i])["input_ids"]) if reference else None
        lengths = (_tokens_of_steps(run, table, i, prefix), own, known, own - before_last)
    return Judged(correct, graded, parsable, well_formed(text, truncated), truncated, verdict, *lengths)


def _tokens_of_steps(run: Run, table: dict[str, list[Any]], i: int, steps: int) -> int:
    """Sampled tokens that lie wholly in the first `steps` steps."""
    end = table["step_ends"][i][steps - 1] if steps > 0 else 0
    return tokens_before(table["token_ids"][i], end, lambda ids: decode(run.tokenizer, ids))


def _loss_mask(run: Run, table: dict[str, list[Any]], i: int, neutral: bool, advantage: float) -> list[bool]:
    """Which tokens give a gradient: none of a neutral response; under `mask_after_error` only those before the first
    wrong step of a wrong response that would be reinforced."""
    tokens, error = len(table["token_ids"][i]), table["first_error_step"][i]
    if neutral:
        return [False] * tokens
    if run.config.algorithm.credit.mask_after_error and error is not None and advantage > 0:
        kept = _tokens_of_steps(run, table, i, error - 1)
        return [True] * kept + [False] * (tokens - kept)
    return [True] * tokens


def check_judge(run: Run, iteration: int) -> None:
    """Stops a run whose judge failed in each of the last `judge.patience` iterations, this one included."""
    settings = run.config.judge
    window = range(iteration - settings.patience + 1, iteration + 1)
    if window.start < 1:
        return
    recent = [read_json(run.paths.metrics(i))["metrics"] for i in window]
    shares = [m["judge/abstained_frac"] for m in recent]
    if min(shares) > settings.max_abstained_frac:
        raise JudgeFailed(
            f"the judge abstained on {shares[-1]:.0%} of what it was asked, and on more than judge.max_abstained_frac="
            f"{settings.max_abstained_frac:.0%} in each of {settings.patience} iterations (judge.patience): what it "
            f"teaches is not the paper's method any more. Its reasons: "
            f"column verdict_reason of {run.paths.rollouts(iteration)}"
        )
