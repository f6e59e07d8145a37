"""The report of a sweep, from what the tracking server has: one HTML file that needs nothing else, pictures, tables.

report.html    everything          accuracy.png shares.png rewards.png    its pictures (NAME-narrow.png: for a phone)
summary.csv    a row an arm        points.csv                             every point of every curve
"""

from __future__ import annotations

import base64
import csv
import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from sgpo_core.analysis.comparison import (
    LEVEL,
    ArmSummary,
    Comparison,
    RunRecord,
    Standing,
    compare,
    differing_settings,
)
from sgpo_core.config.base import ConfigError
from sgpo_core.config.sweep import SweepConfig, SweepRun, arms
from sgpo_core.storage.atomic import write_text
from tasks.reports.text_table import text_table
from tasks.sweeps import pictures as sweep_pictures
from tasks.sweeps import tracking as sweep_tracking
from tasks.tracking.server import tracking_uri, without_password

METRICS = (
    *("group/all_negative_frac", "group/mixed_frac", "group/all_positive_frac"),
    *("reward/outcome_mean", "reward/shaped_mean", "reward/rts_mean"),
    *("judge/calls", "judge/seconds", "judge/tokens", "rollout/tokens", "time/iteration_s"),
)
FILES = ("report.html", "summary.csv", "points.csv", *sweep_pictures.FILES)
_STANDING = ("accuracy", "vs. baseline", "p", "p, corrected")
COLUMNS = [
    *("arm", "runs", *(f"final {name}" for name in _STANDING), *(f"equal tokens: {name}" for name in _STANDING)),
    *("mean over run", "reach target", "iterations to it", "tokens to it", "tokens", "seconds", "judge calls"),
]
# The page has two tables in place of a wide one: what is reached, and what it takes. Columns by number.
_TABLES = (
    ("Accuracy", range(10)),
    ("Price", (0, *range(10, len(COLUMNS)))),
)
_IN_TERMINAL = [name for name in COLUMNS[:12] if not name.endswith(" p")]
_FINDINGS = {1: "significantly better than the baseline", 0: "not significantly different", -1: "significantly worse"}
_WIDTH = 120  # of what is said below the table


def publish_report(config: SweepConfig, runs: Sequence[SweepRun], folder: Path) -> tuple[Path, Comparison]:
    """Reads the sweep's runs (those of `sweep_runs`) from the tracking server, writes the report's files into `folder`
    and hangs them on a summary run. Returns the HTML file and what it says."""
    metric = f"eval/{config.benchmark}/avg_at_k"
    named = list(arms(config))
    summary = announce(config)
    run_ids = {run.config.run_id for run in runs}
    records = sweep_tracking.sweep_records(config.tag, run_ids, [metric, *METRICS])
    comparison = compare(records, named, config.seeds, config.baseline or named[0], metric, config.target)
    path = write_report(config.tag, comparison, records, folder)
    sweep_tracking.log_report(summary, [file for name in FILES if (file := folder / name).is_file()])
    return path, comparison


def announce(config: SweepConfig) -> str:
    """The sweep's summary run in MLflow, from its beginning: a report can be made while it is in progress."""
    return sweep_tracking.open_summary(config.experiment, config.tag, config.model_dump(mode="json"))


def announced(sweep: str) -> SweepConfig:
    """The settings of the sweep with this tag, from MLflow alone."""
    settings = sweep_tracking.sweep_settings(sweep)
    if settings is None:
        raise ConfigError(f"MLflow ({without_password(tracking_uri())}) knows no sweep {sweep!r}")
    return SweepConfig.model_validate(settings)


def write_report(sweep: str, comparison: Comparison, records: Sequence[RunRecord], folder: Path) -> Path:
    """The files of the report. `records` may be of unfinished runs, too; only finished ones are drawn."""
    finished = [r for r in records if r.finished]
    pictures = sweep_pictures.draw(finished, comparison, folder)
    template = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined
    ).get_template("sweep_report.html")
    html = template.render(
        sweep=sweep,
        comparison=comparison,
        verdict=verdict(comparison),
        explanation=explanation(comparison),
        columns=COLUMNS,
        tables=_TABLES,
        rows=[[_breakable(cell) for cell in table_row(row, comparison)] for row in comparison.arms],
        pictures=[(picture.title, picture.text, _data(picture.file), _data(picture.narrow)) for picture in pictures],
        arms=[row.arm for row in comparison.arms],
        settings=differing_settings(finished),
    )
    write_text(folder / "summary.csv", _csv([COLUMNS, *(table_row(row, comparison) for row in comparison.arms)]))
    write_text(folder / "points.csv", _csv(_points(finished)))
    write_text(folder / "report.html", html)
    return folder / "report.html"


def verdict(comparison: Comparison) -> str:
    """The answer in a few sentences, no stronger than the numbers: after the last iteration, at equal tokens, and
    whether the two agree."""
    ends = {row.arm: row.final for row in comparison.arms if row.final.accuracy}
    if not ends:
        return "No run has finished: there is nothing to compare yet."
    first = f"{_after_last(comparison).capitalize()} {_leader_in_words(comparison, ends)}"
    equal = {row.arm: row.equal_tokens for row in comparison.arms if row.equal_tokens.accuracy}
    if not equal:
        return f"{first} No tokens were recorded, so nothing is known at equal tokens."
    budget = f"{comparison.token_budget:,.0f}, the fewest that any run used"
    second = f"At equal tokens ({budget}) {_leader_in_words(comparison, equal)}"
    differ = _disagreements(comparison, ends, equal)
    return f"{first} {second} " + (f"The two disagree. {' '.join(differ)}" if differ else "The two agree.")


def _after_last(comparison: Comparison) -> str:
    assert comparison.iterations is not None
    fewest, most = comparison.iterations
    return f"at equal iterations ({most})" if fewest == most else f"after the last iteration ({fewest} to {most})"


def _leaders(standings: Mapping[str, Standing]) -> list[str]:
    """The arm with the highest accuracy, and those whose accuracy is shown as the same."""
    most = max(_mean(standing) for standing in standings.values())
    return [arm for arm, standing in standings.items() if f"{_mean(standing):.3f}" == f"{most:.3f}"]


def _mean(standing: Standing) -> float:
    assert standing.accuracy is not None
    return standing.accuracy.mean


def _leader_in_words(comparison: Comparison, standings: Mapping[str, Standing]) -> str:
    arm, *tied = _leaders(standings)
    if tied:
        others = " Every other arm is below." if len(standings) > 1 + len(tied) else ""
        names = f"{', '.join([arm, *tied[:-1]])} and {tied[-1]}"
        above = "".join(
            f" {name} is at {_difference(standings[name], comparison.baseline)}."
            for name in (arm, *tied)
            if comparison.baseline not in (arm, *tied) and standings[name].versus is not None
        )
        return f"there is no difference between {names}: accuracy {_mean(standings[arm]):.3f}.{others}{above}"
    text = f"{arm} has the highest accuracy, {_mean(standings[arm]):.3f}"
    if arm == comparison.baseline:
        return f"{text}. It is the baseline."
    versus = standings[arm].versus
    if versus is None:
        return f"{text}. It has no finished seed in common with the baseline, {comparison.baseline}."
    least = min(1.0, versus.smallest_p * sum(standing.versus is not None for standing in standings.values()))
    seeds = f"{versus.n} seed{'s' * (versus.n != 1)} in common"
    limit = f"With {seeds} and {len(standings)} arms no corrected p below {least:.3g} is possible"
    few = ": too few runs to call a difference significant" if least > LEVEL else ""
    return f"{text}: {_difference(standings[arm], comparison.baseline)}. {limit}{few}."


def _difference(standing: Standing, baseline: str) -> str:
    assert standing.versus is not None and standing.p_adjusted is not None
    sure = "significant" if standing.finding else "not significant"
    return (
        f"{standing.versus.mean:+.3f} against {baseline}, paired by seed, {sure} at {100 * LEVEL:g} % "
        f"(corrected p = {standing.p_adjusted:.3f})"
    )


def _disagreements(comparison: Comparison, ends: Mapping[str, Standing], equal: Mapping[str, Standing]) -> list[str]:
    """Sentences: where another arm is highest, and where a difference from the baseline is significant once only."""
    then, found, leader = _after_last(comparison), [], _leaders(ends)[0]
    # An arm that is highest in both, be it together with others, is no disagreement.
    if not set(_leaders(ends)) & set(_leaders(equal)):
        has = leader in equal and equal[leader].versus is not None
        own = f", where {leader} is at {_difference(equal[leader], comparison.baseline)}" if has else ""
        found.append(f"Highest is {leader} {then}, and {_leaders(equal)[0]} at equal tokens{own}.")
    for arm in [arm for arm in ends if arm in equal]:
        if ends[arm].finding != equal[arm].finding:
            found.append(
                f"{arm} is {_FINDINGS[ends[arm].finding]} {then}, and {_FINDINGS[equal[arm].finding]} at equal tokens."
            )
    return found


def explanation(comparison: Comparison) -> str:
    """How to read the table."""
    budget = f"{comparison.token_budget:,.0f}" if comparison.token_budget else "no"
    pairs = [row.final.versus for row in comparison.arms if row.final.versus]
    least = f" (no p can be below {min(p.smallest_p for p in pairs):.3g} here)" if pairs else ""
    return (
        "[95 % t: ...] is Student's t interval of the mean over runs. It holds the true mean in 95 % of all sweeps if "
        "results are normally distributed over seeds, in fewer if they are not (docs/compare.md says in how many). "
        "[range: ...] is from the lowest to the highest of two runs, or of runs that all ended alike, and claims "
        "nothing; one run has no interval. From 30 runs on it is a BCa bootstrap interval, and says so. Differences "
        f"are paired by seed; p is of the two-sided sign-flip permutation test{least}, corrected for the number of "
        "arms by Holm's method, after the last iteration and at equal tokens each. Equal tokens: accuracy, between "
        f"evaluations a line, at {budget} sampled tokens (policy and judge), the fewest that any run used. Target: "
        f"accuracy {comparison.target:g}; the price is the median over runs, - unless more than half get there."
    )


def table_row(row: ArmSummary, comparison: Comparison) -> list[str]:
    """The cells of `COLUMNS`, as text."""
    baseline = row.arm == comparison.baseline
    return [
        row.arm,
        str(row.runs),
        *_cells(row.final, baseline),
        *_cells(row.equal_tokens, baseline),
        _number(row.area, ".3f"),
        f"{row.reached} of {row.runs}",
        _number(row.iterations_to_target, ".0f"),
        *(_number(x, ",.0f") for x in (row.tokens_to_target, row.tokens, row.seconds, row.judge_calls)),
    ]


def _cells(standing: Standing, baseline: bool) -> list[str]:
    """Those of `_STANDING`."""
    versus = standing.versus
    return [
        "-" if standing.accuracy is None else standing.accuracy.text(),
        "baseline" if baseline else "-" if versus is None else versus.text("+"),
        _number(None if versus is None else versus.p, ".3f"),
        _number(standing.p_adjusted, ".3f"),
    ]


def as_text(comparison: Comparison) -> str:
    """For a terminal: the columns of accuracy, and the verdict."""
    shown = [COLUMNS.index(name) for name in _IN_TERMINAL]
    rows = [COLUMNS, *(table_row(row, comparison) for row in comparison.arms)]
    table = text_table([[row[i] for i in shown] for row in rows])
    return f"{table}\n\n{textwrap.fill(verdict(comparison), _WIDTH)}"


def _breakable(cell: str) -> str:
    """With spaces such that a line breaks only before an interval, or between its name and its numbers."""
    number, bracket, interval = cell.partition(" [")
    name, colon, limits = interval.partition(": ")
    return number + bracket + name.replace(" ", "\u00a0") + colon + limits.replace(" ", "\u00a0")


def _data(png: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(png.read_bytes()).decode()}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _points(records: Sequence[RunRecord]) -> list[list[Any]]:
    rows: list[list[Any]] = [["arm", "seed", "run", "metric", "iteration", "value"]]
    for record in records:
        for metric, curve in record.curves.items():
            rows += [[record.arm, record.seed, record.run_id, metric, i, v] for i, v in sorted(curve.items())]
    return rows


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()
