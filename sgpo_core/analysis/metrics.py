"""Every metric's name, unit, meaning, and what to do when it looks bad; and how each is reduced from an iteration.

docs/metrics.md is made of this table (`python -m sgpo_core.analysis.metrics`), and a test compares them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from sgpo_core.data.format_gate import malformed, well_formed
from sgpo_core.data.segmentation import segment
from sgpo_core.storage.rollout_table import vote_number
from sgpo_core.types import Outcome, Rollout, RolloutGroup


@dataclass(frozen=True, slots=True)
class Metric:
    """One line of the dictionary. `<...>` in a name stands for a benchmark or a stage."""

    unit: str
    meaning: str
    when_bad: str


_SHARE = "share, 0..1"
METRICS: dict[str, Metric] = {
    "group/all_negative_frac": Metric(_SHARE, "groups without a correct response, by outcome", "near 1 under GRPO: nothing is learned; use algorithm=sgpo, easier problems, or a larger sampling.group_size"),
    "group/all_positive_frac": Metric(_SHARE, "groups with only correct responses", "near 1: the problems are too easy to teach anything"),
    "group/mixed_frac": Metric(_SHARE, "groups with both", "near 0: GRPO has no signal"),
    "group/zero_signal_frac": Metric(_SHARE, "groups whose advantages are all 0; they are not trained on", "near 1: no update happens; look at group/mixed_frac, group/all_negative_frac and judge/abstained_frac"),
    "reward/outcome_mean": Metric("0..1", "mean outcome reward (1 correct, 0 else): accuracy on training problems", "flat: compare with reward/rts_mean, which should rise first"),
    "reward/shaped_mean": Metric("0..1", "mean reward after credit, excluded responses left out", "rises while accuracy does not: the policy exploits the judge, or the judge no longer fits the policy"),
    "reward/rts_mean": Metric("0..1", "mean reasoning trajectory score of judged responses; absent when none was judged", "at 0: malformed responses or a judge that always says step 1"),
    "reward/top_truncated_frac": Metric(_SHARE, "all-negative groups with signal whose best response was cut off (of several that are equally good, the share that was)", "above 0.1: what is learned is not to end; raise sampling.max_tokens, see docs/credit.md"),
    "reward/top_padded_frac": Metric(_SHARE, "the same, whose best response is longer than a solution is expected to be", "above 0.3: steps are added for their own sake; look at them in the traces"),
    "reward/top_answer_frac": Metric(_SHARE, "all-negative groups with signal in whose best response the first wrong step is the last one, the answer", "above 0.3 while rollout/steps_mean falls: answers that come too early are reinforced together with the right steps before them; try algorithm=sgpo-masked, see docs/credit.md"),
    "reward/truncated_share": Metric(_SHARE, "share of all positive advantage that responses have which were cut off", "above rollout/truncated_frac: being cut off is rewarded"),
    "judge/calls": Metric("count", "responses that the judge read", "0 under SGPO means no all-negative group is left"),
    "judge/abstained_frac": Metric(_SHARE, "judged responses of which nothing is known (the judge abstained, or found no wrong step in a wrong response); these are excluded", "over judge.max_abstained_frac for judge.patience iterations the run stops"),
    "judge/cached_frac": Metric(_SHARE, "judged responses whose verdict was known already (the rule judge keeps none: 0)", "near 1 early in a run: the policy repeats itself"),
    "judge/vote_agreement": Metric(_SHARE, "share of the votes that the most frequent one has, mean over judged responses; absent without votes", "below 0.7: the judge is unsure; choose a better one, or more judge.votes"),
    "judge/checked_frac": Metric(_SHARE, "of the steps shown to the rule judge, those that it could check: on chains all, elsewhere those with an equation that it read; absent with other judges", "below 0.9: it is blind to most errors of this data; choose judge=trained, llm or endpoint"),
    "judge/seconds": Metric("s", "time in which the judge was at work; under async_level=1 also on responses of the next iteration", "large against time/generate_s: more judge engines"),
    "judge/wait_s": Metric("s", "time the iteration waited for the judge after the last response was graded", "large: judging takes longer than generation, beside which it runs; use more judge engines, or a smaller judge"),
    "judge/tokens": Metric("count", "tokens the judge read and wrote (the rule judge none); of a verdict that was known, those that it took when it was given", "-"),
    "judge/drift_agreement": Metric(_SHARE, "sampled verdicts that the rule judge gives, too; where that one is exact and is not the judge itself", "falls: the responses are no longer like those that a trained judge has seen; train it again"),
    "judge/drift_alarm": Metric("0 or 1", "1 when judge/drift_agreement, over at least 10 verdicts, is below judge.drift_alarm", "1: see judge/drift_agreement"),
    "grade/unparsable_frac": Metric(_SHARE, "responses without a readable final answer", "rising: the policy loses the format"),
    "grade/malformed_frac": Metric(_SHARE, "responses that the format gate refuses; a wrong one that is judged has RTS 0", "high: look at the reasons; a policy of this style never earns credit, unless algorithm.credit.format_gate=false"),
    "grade/malformed_<reason>_frac": Metric(_SHARE, "those, by reason: empty, thinking (a thinking section that never ends, or a second one), numbering (steps do not count 1, 2, 3), no_answer, several_answers, early_answer (not in the last step); absent where there are none", "no_answer: say in model.instruction how the answer is given"),
    "grade/failed_frac": Metric(_SHARE, "responses whose grading timed out or broke", "above 0.01: look at those rows in rollouts.parquet"),
    "policy/loss": Metric("-", "policy loss, mean over the iteration's optimizer steps", "nan: lower train.lr"),
    "policy/kl": Metric("nats a token", "k3 estimate of KL to the initial policy; 0 while algorithm.loss.kl_coef is 0", "grows without bound: raise kl_coef"),
    "policy/clip_frac": Metric(_SHARE, "tokens whose ratio was clipped", "above 0.2: lower train.lr or train.mini_batches"),
    "policy/entropy": Metric("nats a token", "mean entropy of the policy at sampled tokens", "collapses to 0 early: lower train.lr"),
    "policy/grad_norm": Metric("-", "gradient norm before clipping, mean over steps", "spikes: lower train.lr"),
    "policy/steps": Metric("count", "optimizer steps this iteration; 0 when no group has signal", "0 for long: see group/zero_signal_frac"),
    "policy/shared_frac": Metric(_SHARE, "training tokens that were not computed, because responses to one prompt share it", "far below the prompts' share of all tokens: raise train.micro_batch_tokens"),
    "policy/sampler_logprob_diff": Metric("nats", "mean absolute difference of trainer and sampler at the tokens of the first optimizer step, before it; absent where there is no step (offline and under async_level=1: how far the policy has moved from the one that wrote the responses)", "float32: above 1e-4 the engines have stale weights; bfloat16: above 0.05 look closer"),
    "policy/sync_probe_diff": Metric("nats", "mean absolute difference of trainer and engine over the tokens of a probe, after the weight sync; the largest of all engines", "float32: about 1e-5, bfloat16: about 0.05; over cluster.sync_tolerance the run stops"),
    "policy/mismatch_alarm": Metric("0 or 1", "1 when policy/sampler_logprob_diff is over train.mismatch_alarm; absent where another policy has sampled the responses", "1: see policy/sampler_logprob_diff; algorithm.loss.old_logprobs=trainer and algorithm.loss.tis_cap correct for it"),
    "rollout/staleness": Metric("iterations", "by how many iterations the policy that is updated is ahead of the one that sampled, mean over responses; 0; under async_level=1 it is 1 from the second iteration on (but 0 in the first iteration after a run was extended); absent offline", "-"),
    "rollout/rounds": Metric("count", "rounds of sampling; over 1 only under resampling.strategy=dynamic (DAPO)", "at algorithm.resampling.max_rounds: mixed groups are rare, and batches are partial"),
    "rollout/tokens": Metric("count", "sampled tokens (offline: those of the batch, in every epoch again)", "-"),
    "rollout/length_mean": Metric("tokens", "mean length of a response", "falls to a few tokens: with the format gate off, the policy earns credit by very short steps"),
    "rollout/truncated_frac": Metric(_SHARE, "responses cut at sampling.max_tokens", "above 0.1: raise sampling.max_tokens"),
    "rollout/steps_mean": Metric("count", "mean number of steps of a response", "rises or falls for long: the policy adds or drops steps for credit; see algorithm.credit.expected_length"),
    "rollout/length_ratio": Metric("ratio", "steps of a complete, well-formed response over those of the reference solution, median; absent without references of two steps or more", "near or over algorithm.credit.max_length_ratio: raise that, or set algorithm.credit.expected_length=group"),
    "eval/<benchmark>/avg_at_k": Metric("0..1", "mean accuracy over k responses a problem", "-"),
    "eval/<benchmark>/avg_stderr": Metric("0..1", "standard error of avg@k over problems", "large against a difference: more problems or a larger k"),
    "eval/<benchmark>/avg_low": Metric("0..1", "lower end of the 95 % interval of avg@k over problems; absent if there are fewer than 3, or if all have the same share", "-"),
    "eval/<benchmark>/avg_high": Metric("0..1", "upper end of it", "-"),
    "eval/<benchmark>/no_answer_frac": Metric(_SHARE, "responses without a boxed answer", "high: see truncated_frac; else the policy does not know the format"),
    "eval/<benchmark>/truncated_frac": Metric(_SHARE, "responses cut at the protocol's max_tokens", "above 0.05: avg@k measures the limit; raise eval.sets.<benchmark>.max_tokens"),
    "eval/<benchmark>/failed_frac": Metric(_SHARE, "responses whose grading timed out or broke; they count as wrong", "above 0.01: look at them in generations.parquet"),
    "eval/<benchmark>/length_mean": Metric("tokens", "mean length of a response", "-"),
    "eval/<benchmark>/pass_at_k": Metric("0..1", "share of problems with at least one correct of k", "-"),
    "eval/<benchmark>/maj_at_k": Metric("0..1", "share of problems whose most frequent answer is correct (ties: the one given first)", "-"),
    "warm_start/loss": Metric("nats a token", "supervised loss, mean of up to 50 steps; of chains with the answer line weighted", "flat: the policy is too small or train.lr wrong"),
    "warm_start/agreement": Metric(_SHARE, "samples whose answer line follows from their own steps (the gate)", "below gate_agreement: steps are added"),
    "warm_start/form": Metric(_SHARE, "responses to held-out problems that pass the format gate (the gate)", "below gate_form: steps are added"),
    "warm_start/accuracy": Metric(_SHARE, "samples with the right answer", "-"),
    "judge_eval/<subset>/f1": Metric("0..1", "harmonic mean of the next two; of the subset `all` the mean of the subsets' (ProcessBench)", "below 0.8: much of the credit is noise; the presets of 7B and more stop below 0.6, which no model without thinking clearly exceeds"),
    "judge_eval/<subset>/accuracy_erroneous": Metric(_SHARE, "erroneous solutions whose first wrong step is named exactly; abstentions count as wrong", "-"),
    "judge_eval/<subset>/accuracy_correct": Metric(_SHARE, "correct solutions in which no wrong step is found", "low: the judge finds fault with everything"),
    "judge_eval/<subset>/{early,exact,late,missed}": Metric("count", "erroneous solutions by their verdict: a step before the first wrong one, that one, a later one, or none", "late: mistakes are rewarded; early: credit is lost"),
    "judge_eval/<subset>/{erroneous,correct,false_alarms}": Metric("count", "solutions with and without a wrong step; correct ones that are called wrong", "-"),
    "judge_eval/<subset>/checked_steps": Metric("count", "steps that the rule judge could check (see judge/checked_frac); absent with other judges", "few: its verdicts say little about this data"),
    "judge_eval/<subset>/abstained_frac": Metric(_SHARE, "solutions without a verdict", "above 0.05: look at the reasons in verdicts.parquet"),
    "judge_eval/<subset>/{agreement,prompt_tokens,completion_tokens}": Metric("share, tokens", "mean share of equal votes; tokens read and written, of verdicts out of the cache those that they took when they were given", "-"),
    "judge_eval/injections_gained": Metric("count", "of 60 responses that try to talk the judge into credit, those that get more than their honest twin", "above 0: the judge can be talked into credit; see docs/injections.md"),
    "judge_eval/seconds": Metric("s", "time for all verdicts", "-"),
    "judge_training/loss": Metric("nats a token", "supervised loss of a judge's training, mean of up to 50 steps", "flat: more steps, or running_weight above 0"),
    "judge_training/accuracy": Metric(_SHARE, "test responses that get exactly the right verdict (the gate)", "below gate_accuracy: steps are added"),
    "judge_training/early_frac": Metric(_SHARE, "test responses for which a step before the first wrong one is named", "credit is lost"),
    "judge_training/late_frac": Metric(_SHARE, "the same, a step after it", "a mistake is rewarded"),
    "judge_training/missed_frac": Metric(_SHARE, "wrong test responses in which no error is found", "more steps"),
    "judge_training/false_alarm_frac": Metric(_SHARE, "right test responses that are called wrong", "more right examples (data.corruption.right)"),
    "judge_training/unreadable_frac": Metric(_SHARE, "unconstrained replies that are no verdict", "more steps"),
    "judge_training/garbage_accuracy": Metric(_SHARE, "as accuracy, on solutions with a line that is no step", "raise data.corruption.garbage_line"),
    "speed/generated_tokens_s": Metric("tokens/s", "tokens that all rollout engines sampled in a second of generation; absent where saved responses were used again", "falls: longer responses fill the KV cache; see the log's line about it"),
    "speed/trained_tokens_s": Metric("tokens/s", "tokens that all ranks computed in a second of the update; responses that share a prompt count it once", "falls: raise train.micro_batch_tokens"),
    "speed/trainer_mfu": Metric(_SHARE, "model FLOPs utilization of the update: operations that the tokens need over what the GPUs' data sheet promises; absent on the CPU, and where model or GPU are not known", "below 0.2: raise train.micro_batch_tokens, or use fewer ranks"),
    "speed/rollout_idle_frac": Metric(_SHARE, "share of the iteration in which the rollout engines waited for others", "this and the next add up to about 1 where engines and ranks take turns; cluster.colocated=true lets them share GPUs"),
    "speed/trainer_idle_frac": Metric(_SHARE, "the same of the trainer ranks", "the larger of the two says of which there are too many"),
    "speed/judge_idle_frac": Metric(_SHARE, "the same of the judge; absent where it was not asked", "near 1: fewer judge engines, or a larger judge"),
    "memory/trainer_gib": Metric("GiB", "the most that a trainer rank has had: of its GPU since the run's start; on the CPU, of memory since its process began", "near the GPU's size: lower train.micro_batch_tokens; compare with flows.preflight"),
    "time/<stage>_s": Metric("s", "seconds in generate (offline: read), grade, judge, recompute_logprobs, credit, update, sync, evaluate, record, checkpoint (the last two: of the iteration before), and iteration in all; under async_level=1 generate_ahead is the generation of the next iteration, beside the other stages, and wait_ahead how long these waited for its end", "the largest one is where to put hardware"),
    "system/<what>": Metric("MLflow's", "CPU, memory, disk, network and NVIDIA GPUs of the machine that the flow runs on, every ten seconds; in MLflow alone (tab System metrics). MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING=false turns them off", "-"),
}  # fmt: skip


def rollout_metrics(groups: Sequence[RolloutGroup]) -> dict[str, float]:
    """Group, reward, judge, grade and rollout metrics of a finished iteration (at least one response)."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    credits = [rollout.credit for rollout in rollouts if rollout.credit is not None]
    grades = [rollout.grade for rollout in rollouts if rollout.grade is not None]
    outcomes = Counter(grade.outcome for grade in grades)
    lengths = [len(rollout.token_ids) for rollout in rollouts]
    metrics = {
        "group/all_negative_frac": _mean([group.all_negative for group in groups]),
        "group/all_positive_frac": _mean([group.all_positive for group in groups]),
        "group/mixed_frac": _mean([group.mixed for group in groups]),
        "group/zero_signal_frac": _mean([not group.has_signal for group in groups]),
        "reward/outcome_mean": _mean([grade.reward for grade in grades]),
        **_judge_metrics(rollouts),
        "grade/unparsable_frac": outcomes[Outcome.UNPARSABLE] / len(rollouts),
        "grade/failed_frac": (outcomes[Outcome.TIMEOUT] + outcomes[Outcome.ERROR]) / len(rollouts),
        **_form_metrics(groups),
        "rollout/tokens": float(sum(lengths)),
        "rollout/length_mean": _mean(lengths),
        "rollout/truncated_frac": _mean([rollout.truncated for rollout in rollouts]),
        "rollout/steps_mean": _mean([len(rollout.step_ends or ()) for rollout in rollouts]),
    }
    if counted := [credit.shaped_reward for credit in credits if not credit.excluded]:
        metrics["reward/shaped_mean"] = _mean(counted)
    if rts := [credit.rts for credit in credits if credit.rts is not None]:
        metrics["reward/rts_mean"] = _mean(rts)
    return metrics | _length_metrics(groups)


def _form_metrics(groups: Sequence[RolloutGroup]) -> dict[str, float]:
    found = [malformed(r.text, r.truncated, g.problem.answer_form) for g in groups for r in g.rollouts]
    reasons = Counter(reason for reason in found if reason)
    shares = {f"grade/malformed_{reason}_frac": count / len(found) for reason, count in sorted(reasons.items())}
    return {"grade/malformed_frac": reasons.total() / len(found)} | shares


def _length_metrics(groups: Sequence[RolloutGroup]) -> dict[str, float]:
    """Whether length is paid for, and how long responses are beside the reference solutions."""
    metrics: dict[str, float] = {}
    paid = [(max(0.0, r.credit.advantage), r.truncated) for g in groups for r in g.rollouts if r.credit is not None]
    if total := sum(advantage for advantage, _ in paid):
        metrics["reward/truncated_share"] = sum(advantage for advantage, truncated in paid if truncated) / total
    if tops := [_best_of(group) for group in groups if group.all_negative and group.has_signal]:
        metrics["reward/top_truncated_frac"] = _mean([_mean([r.truncated for r in top]) for top in tops])
        metrics["reward/top_padded_frac"] = _mean(
            [_mean([r.credit is not None and r.credit.padded for r in top]) for top in tops]
        )
        metrics["reward/top_answer_frac"] = _mean([_mean([_only_answer_is_wrong(r) for r in top]) for top in tops])
    if ratios := [ratio for group in groups for ratio in _length_ratios(group)]:
        metrics["rollout/length_ratio"] = median(ratios)
    return metrics


def _best_of(group: RolloutGroup) -> list[Rollout]:
    """The responses of a group that have its largest advantage."""
    advantages = [0.0 if r.credit is None else r.credit.advantage for r in group.rollouts]
    return [r for r, advantage in zip(group.rollouts, advantages, strict=True) if advantage == max(advantages)]


def _only_answer_is_wrong(rollout: Rollout) -> bool:
    steps = len(rollout.step_ends or ())
    return rollout.judgment is not None and not rollout.truncated and rollout.judgment.verdict.first_error_step == steps


def _length_ratios(group: RolloutGroup) -> list[float]:
    reference = len(segment(group.problem.reference or ""))
    if reference < 2:
        return []
    form = group.problem.answer_form
    complete = [r for r in group.rollouts if r.step_ends and not r.truncated and well_formed(r.text, False, form)]
    return [len(r.step_ends or ()) / reference for r in complete]


def _judge_metrics(rollouts: Sequence[Rollout]) -> dict[str, float]:
    judged = [(rollout.judgment, rollout.credit) for rollout in rollouts if rollout.judgment is not None]
    judgments = [judgment for judgment, _ in judged]
    metrics = {
        "judge/calls": float(len(judged)),
        # More than the judge's own abstentions: a wrong response in which it finds no wrong step is excluded, too.
        "judge/abstained_frac": _mean([credit is None or credit.excluded for _, credit in judged]) if judged else 0.0,
        "judge/cached_frac": _mean([judgment.cached for judgment in judgments]) if judged else 0.0,
        "judge/tokens": float(sum(j.prompt_tokens + j.completion_tokens for j in judgments)),
    }
    checked = [(r.judgment.checked_steps, _shown_steps(r)) for r in rollouts if r.judgment and _shown_steps(r)]
    if known := [(count, shown) for count, shown in checked if count is not None]:
        metrics["judge/checked_frac"] = sum(count for count, _ in known) / sum(shown for _, shown in known)
    votes = [[vote_number(vote) for vote in judgment.votes] for judgment in judgments]
    if voted := [max(Counter(said).values()) / len(said) for said in votes if len(said) > 1]:
        metrics["judge/vote_agreement"] = _mean(voted)
    return metrics


def _shown_steps(rollout: Rollout) -> int:
    """Steps that a judge is shown: of a truncated response all but the last."""
    return max(0, len(rollout.step_ends or ()) - rollout.truncated)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def as_markdown() -> str:
    """The dictionary as a Markdown table."""
    lines = ["| metric | unit | meaning | when it looks bad |", "|---|---|---|---|"]
    lines += [f"| `{name}` | {m.unit} | {m.meaning} | {m.when_bad} |" for name, m in METRICS.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    print(as_markdown())
