"""The nightly: every registered candidate and champion evaluated anew, compared, and an alarm where one is worse.

    registry ──▶ evaluate (forced, same seeds) ──▶ record ──▶ compare with the last night and the champion ──▶ alarm

The alarm is the Prefect event `sgpo.benchmark.regression`, a tag on the flow run, and an artifact. A policy whose
evaluation fails does not keep the others from theirs; the flow run fails at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from prefect import get_client, get_run_logger, runtime
from prefect.artifacts import create_markdown_artifact
from prefect.events import emit_event

from sgpo_core.analysis.statistics import POWER
from sgpo_core.config.evaluation import EvaluationConfig
from sgpo_core.evaluation.protocol import Result
from sgpo_core.evaluation.regression import Comparison, Pair, compare_all, regressions
from tasks.benchmarks.evaluate import evaluate_policy
from tasks.benchmarks.records import flat_metrics, last_night, record_night
from tasks.failures import PartlyFailed
from tasks.tracking.policies import Policy, registered
from tasks.tracking.registry import CHAMPION, candidates_and_champions

EVENT = "sgpo.benchmark.regression"
TAG = "regression"
_NAMED = 20  # problems that an event or an artifact names


@dataclass
class Night:
    """What a night brings: results by model@alias, comparisons, and why others could not be made."""

    results: dict[str, dict[str, Result]] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)  # label -> MLflow run of its series
    pairs: list[Pair] = field(default_factory=list)  # to be compared when all are known: each depends on their number
    comparisons: list[Comparison] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def run_night(config: EvaluationConfig) -> dict[str, Any]:
    """Evaluates, records, compares, raises the alarm. PartlyFailed at the end where a policy could not be evaluated."""
    log, night, done = get_run_logger(), Night(), dict[str, dict[str, Result]]()
    for version in candidates_and_champions():
        try:
            policy = registered(version)
            if policy.weights not in done:  # a champion is often the candidate, too
                done[policy.weights] = evaluate_policy(config, policy, force=True)
            take_up(config, night, policy, done[policy.weights])
        except Exception as error:
            log.exception(f"{version.label} could not be evaluated")
            night.failed[version.label] = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    if not night.results and not night.failed:
        log.warning("no registered model has an alias candidate or champion: nothing to evaluate")
    night.comparisons = compare_all(night.pairs, config.alarm.level)
    worse = regressions(night.comparisons, config.alarm.level)
    publish(night, worse, config.alarm.level)
    result = {
        "run_id": "nightly",
        "mlflow_run_id": next(iter(night.runs.values()), ""),
        "run_dir": "",
        "runs": night.runs,
        "regressions": [comparison.name for comparison in worse],
        "final_metrics": {label: flat_metrics(results) for label, results in night.results.items()},
    }
    if night.failed:
        reasons = "; ".join(f"{label}: {why}" for label, why in night.failed.items())
        raise PartlyFailed(f"not evaluated: {reasons}", result)
    return result


def take_up(config: EvaluationConfig, night: Night, policy: Policy, results: dict[str, Result]) -> None:
    """Pairs a policy's results with what was there before, then records them."""
    assert policy.version is not None
    label, champion = policy.version.label, f"{policy.version.model}@{CHAMPION}"
    others = {"the last night": last_night(label)}
    if label != champion and champion in night.results:
        others["the champion"] = night.results[champion]
    for against, before in others.items():
        for name in [name for name in results if name in before]:
            try:
                night.pairs.append(Pair(label, against, results[name], before[name]))
            except ValueError as error:
                night.notes.append(f"{label} {name}, {against}: {error}")
    night.runs[label] = record_night(config, policy, results)
    night.results[label] = results


def publish(night: Night, worse: Sequence[Comparison], level: float) -> None:
    """The artifact, and where something is worse the tag and the events."""
    markdown = as_markdown(night, worse, level)
    create_markdown_artifact(markdown, key="benchmark-nightly", description="Nightly benchmarks")
    log = get_run_logger()
    log.info(f"{verdict(night, worse)}: {len(night.results)} policies evaluated, {len(night.comparisons)} comparisons")
    for note in night.notes:
        log.warning(f"not compared: {note}")
    for comparison in worse:
        log.error(f"REGRESSION {line(comparison)}")
        flow_run = {
            "prefect.resource.id": f"prefect.flow-run.{runtime.flow_run.id}",
            "prefect.resource.role": "flow-run",
        }
        emit_event(
            EVENT,
            resource={
                "prefect.resource.id": f"sgpo.model.{comparison.model}",
                "prefect.resource.name": comparison.model,
            },
            related=[flow_run],
            payload=payload(comparison),
        )
    if worse:
        with get_client(sync_client=True) as client:
            client.update_flow_run(runtime.flow_run.id, tags={*runtime.flow_run.tags, TAG})


def payload(comparison: Comparison) -> dict[str, Any]:
    """What the event says."""
    difference = comparison.difference
    return {
        "summary": line(comparison),
        "benchmark": comparison.benchmark,
        "against": comparison.against,
        "before": comparison.before,
        "now": comparison.now,
        "drop": -difference.mean,
        "interval": [difference.low, difference.high],
        "interval_kind": difference.kind,
        "p": difference.p,
        "smallest_drop": comparison.smallest_drop,
        "lost": list(comparison.lost[:_NAMED]),
        "lower": list(comparison.lower[:_NAMED]),
    }


def line(comparison: Comparison) -> str:
    """One comparison in a sentence."""
    d = comparison.difference
    smallest = "none" if comparison.smallest_drop is None else f"{comparison.smallest_drop:.3f}"
    return (
        f"{comparison.name}: avg@k {comparison.before:.3f} -> {comparison.now:.3f}, difference {d.text('+')}, "
        f"p = {d.p:.2g} over {d.n} problems; {len(comparison.lower)} solved less often, {len(comparison.lost)} lost; "
        f"smallest drop that is found in {100 * POWER:g} % of cases: {smallest}"
    )


def verdict(night: Night, worse: Sequence[Comparison]) -> str:
    """The night in a few words."""
    if worse:
        return "REGRESSION"
    return "No regression" if night.comparisons else "Nothing to compare with yet"


def as_markdown(night: Night, worse: Sequence[Comparison], level: float) -> str:
    """The night's artifact."""
    parts = [f"# {verdict(night, worse)}", *(f"- {line(comparison)}" for comparison in worse)]
    for comparison in worse:
        parts += ["", f"{comparison.name}: lost {_listed(comparison.lost)}; gained {_listed(comparison.gained)}"]
        parts += ["", f"solved less often, the largest drop first: {_listed(comparison.lower)}"]
    parts += [
        "",
        "| model | benchmark | avg@k | 95 % interval | pass@k | maj@k | no answer |",
        "|---|---|---|---|---|---|---|",
    ]
    for label, results in night.results.items():
        for name, result in results.items():
            s = result.scores
            parts.append(
                f"| {label} | {name} | {s.avg_at_k:.3f} | {s.interval()} | {s.pass_at[s.k]:.3f} | "
                f"{s.maj_at_k:.3f} | {s.no_answer_frac:.3f} |"
            )
    parts += ["", *(f"- {line(c)}" for c in night.comparisons if c not in worse)]
    if count := len(night.comparisons):
        parts += [
            "",
            f"Level {level:g} over {count} comparisons: by Holm's method the smallest p must be {level / count:.2g}.",
        ]
    parts += [*(f"- not compared: {note}" for note in night.notes)]
    parts += [*(f"- **not evaluated**: {label}: {why}" for label, why in night.failed.items())]
    return "\n".join(parts)


def _listed(ids: Iterable[str]) -> str:
    ids = list(ids)
    more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    return ", ".join(f"`{i}`" for i in ids[:_NAMED]) + more if ids else "none"
