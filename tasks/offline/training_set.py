"""An offline run: its data set, looked at before training, and the batch of every iteration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact
from tqdm import tqdm

from sgpo_core.config.base import fingerprint
from sgpo_core.config.offline import SAMPLED, OfflineConfig
from sgpo_core.judges.rule import rule
from sgpo_core.offline.batches import OfflineBatches, chosen_groups
from sgpo_core.offline.sources import source_files
from sgpo_core.offline.statistics import Statistics, as_rows, warnings
from sgpo_core.offline.store import Groups, Responses
from sgpo_core.storage import rollout_table
from sgpo_core.storage.atomic import read_json, write_json, write_text
from sgpo_core.storage.run_dir import RunPaths
from sgpo_core.types import RolloutGroup
from tasks.data import load_tokenizer
from tasks.judges.group_judge import GroupJudge
from tasks.judging import JudgeFailed
from tasks.offline.plot import draw_statistics
from tasks.offline.prepare import import_report, problems_of
from tasks.preflight import check_resources
from tasks.run import Run, credit_assignment
from tasks.stage import plain_task, stage

FOLDER = "responses"  # of a run, and of its tracking run


def check_offline(config: OfflineConfig) -> None:
    """Raises ConfigError for what is missing: resources, or the source of the responses."""
    check_resources(config)
    if config.responses.source != SAMPLED:
        source_files(config.responses.source)


class TrainingSet:
    """The responses that a run trains on, with the columns of all their stages, the import first.

    (A plain class: Prefect walks through dataclasses that are handed to a task.)
    """

    def __init__(self, config: OfflineConfig, stages: Sequence[Path]) -> None:
        self.config, self.stages = config, list(stages)
        self.groups = Groups(Responses(*stages))
        self.problems: Dataset = problems_of(self.stages[0])
        self.chosen = chosen_groups(self.groups, config.groups)
        self.batches = OfflineBatches(self.groups, self.chosen, config.sampling.problems, config.seed)

    @property
    def iterations(self) -> int:
        """That all epochs take."""
        return self.config.epochs * self.batches.per_epoch

    def table(self, groups: Sequence[int]) -> pa.Table:
        """These groups as a rollout table, as far as the stages went."""
        return self.groups.rows(groups)

    def judged(self, groups: Sequence[int]) -> list[RolloutGroup]:
        """The same as records, ready for credit. Where credit asks about no response no verdict counts, not even a
        recorded one."""
        found = rollout_table.from_table(self.table(groups))
        return GroupJudge(rule, "none").complete(found, {}) if self.config.algorithm.credit.scope == "none" else found


@stage("read")
def take_batch(run: Run, data: TrainingSet, iteration: int) -> None:
    """The responses of an iteration, as its rollouts.parquet."""
    rollout_table.write(run.paths.rollouts(iteration), data.judged(data.batches.groups_of(iteration)))


@plain_task("statistics")
def look_at(data: TrainingSet, paths: RunPaths, policy: str) -> Statistics:
    """Counts what a run is to train on, shows it (log, Prefect, the run's folder), and warns when nothing can be
    learned. Raises JudgeFailed when the judge knew nothing of too many responses."""
    config, log = data.config, get_run_logger()
    statistics = _counted(data, policy)
    rows = _rows(data, statistics)
    width = max(len(name) for name, _ in rows)
    table = "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
    log.info(f"responses of {config.run_id}\n{table}")
    write_text(paths.root / FOLDER / "statistics.txt", table + "\n")
    write_json(paths.root / FOLDER / "statistics.json", statistics.to_json())
    draw_statistics(statistics, paths.root / FOLDER / "statistics.png")
    write_json(paths.root / FOLDER / "tokens.json", _tokens(data.groups.responses))
    lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    create_markdown_artifact("\n".join(lines), key="responses", description=f"responses of {config.run_id}")
    for line in warnings(statistics, config.algorithm.name):
        log.warning(line)
    limit = config.judge.max_abstained_frac
    if statistics.abstained > limit * statistics.judged:
        raise JudgeFailed(
            f"of {statistics.judged:,} judged responses nothing is known of {statistics.abstained:,}, more than "
            f"judge.max_abstained_frac={limit:.0%}: what they teach is not the paper's method any more. The reasons: "
            f"column verdict_reason in {data.stages[-1].parent}"
        )
    return statistics


def _counted(data: TrainingSet, policy: str) -> Statistics:
    config = data.config
    decides = [
        [stage.name for stage in data.stages],
        config.algorithm.model_dump(mode="json"),
        config.groups,
        config.sampling.model_dump(mode="json"),
    ]
    path = data.stages[0].parent / f"statistics-{fingerprint(decides)}.json"
    if not path.exists():
        credit = credit_assignment(config, data.problems["domain"], load_tokenizer(policy))
        statistics, size = Statistics(), config.sampling.problems
        for start in tqdm(range(0, len(data.chosen), size), desc="counting", unit="batch", disable=None):
            statistics.add(credit(data.judged(data.chosen[start : start + size])))
        write_json(path, statistics.to_json())
    return Statistics.from_json(read_json(path))


def _rows(data: TrainingSet, statistics: Statistics) -> list[tuple[str, str]]:
    report, config = import_report(data.stages[0]), data.config
    dropped = f"{report.bad_rows:,} broken, {report.too_long:,} over model.max_length"
    chosen = f"groups={config.groups}: {len(data.chosen):,} of {len(data.groups):,}"
    return [
        ("data set", str(data.stages[0].parent)),
        ("rows", f"{report.rows:,}; left out: {dropped}"),
        *((f"left out, {place}", "") for place in report.bad_named),
        ("trained on", f"{chosen}, {config.epochs} x {data.batches.per_epoch:,} iterations"),
        *as_rows(statistics),
    ]


def _tokens(responses: Responses) -> dict[str, int]:
    """Of the whole data set, whatever of it is trained on, under the names of metrics."""
    written = sum(pc.sum(pc.list_value_length(table.column("token_ids"))).as_py() for table in responses)
    spent = ("verdict_prompt_tokens", "verdict_completion_tokens")
    columns = (table.column(name) for table in responses for name in spent if name in table.column_names)
    return {"rollout/tokens": written, "judge/tokens": sum(pc.sum(column).as_py() or 0 for column in columns)}


def tokens_spent(run_dir: str) -> dict[str, float]:
    """Tokens that policy and judge have written for an offline run's data set, as metrics."""
    return {name: float(count) for name, count in read_json(Path(run_dir) / FOLDER / "tokens.json").items()}


def trained_policy(run_dir: str) -> str:
    """Folder of a finished run's policy."""
    return str(RunPaths(Path(run_dir)).policy)


def log_statistics(run: Run) -> None:
    """Hangs table, numbers and picture on the tracking run."""
    run.tracker.log_folder(run.paths.root / FOLDER, FOLDER)
