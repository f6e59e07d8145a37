"""One run: its settings, folder, engines and problems, which all its stages share."""

from __future__ import annotations

import fcntl
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from prefect import get_run_logger, runtime

from sgpo_core.config.base import ConfigError
from sgpo_core.config.judge import JudgeSettings
from sgpo_core.config.loading import to_yaml
from sgpo_core.config.run import RunConfig, TrainingConfig
from sgpo_core.grading.grader import AnswerGrader
from sgpo_core.judges.base import Judge
from sgpo_core.rl.assignment import CreditAssignment
from sgpo_core.rl.shaping import domain_shares
from sgpo_core.storage.atomic import read_json, remove_atomically, write_json, write_text
from sgpo_core.storage.run_dir import FORMAT, RunPaths, unfinished_predecessor
from sgpo_core.storage.weights import weights_hash
from tasks.data import ProblemSets, decode, load_tokenizer, stop_ids
from tasks.engines.cluster import Engines, engines_for
from tasks.engines.faults import Restart
from tasks.judges.group_judge import GroupJudge
from tasks.judges.group_stream import GroupStream
from tasks.judges.judge_eval import check_gate
from tasks.judges.kinds import kind_of, open_judge, with_engines
from tasks.paths import home
from tasks.services.environment import addresses, option
from tasks.tracking.problem_sets import log_problem_sets
from tasks.tracking.system_metrics import system_metrics
from tasks.tracking.tracker import Tracker, description, run_tags, source, this_attempt


class RunInProgress(ConfigError):
    """Another process is at work on this very run."""


class Run:
    """What the stages of a run share; none of it is replaced while the run goes on. Rollouts pass between the stages in
    files below `paths`, metrics as what a stage returns.

    (A plain class: Prefect walks through dataclasses and models that are handed to a task, and this holds actors.)
    """

    def __init__(
        self,
        config: TrainingConfig,
        iterations: int,
        paths: RunPaths,
        policy: str,
        sets: ProblemSets,
        engines: Engines,
        judge: Judge,
        tracker: Tracker,
        restarts: Sequence[Restart] = (),
    ) -> None:
        self.config, self.iterations, self.paths, self.policy = config, iterations, paths, policy
        self.engines, self.tracker, self.restarts = engines, tracker, restarts
        self.problems, self.benchmarks = sets.train, sets.benchmarks
        self.tokenizer = load_tokenizer(policy)
        self.stop_ids = stop_ids(policy)
        self.grader = AnswerGrader()
        self.judge = GroupJudge(judge, config.algorithm.credit.scope)
        self.stream = GroupStream(self.grader, self.judge, kind_of(config.asked_judge).calls_at_a_time)
        self.credit = credit_assignment(config, self.problems["domain"], self.tokenizer)

    @property
    def is_online(self) -> bool:
        """Whether the responses are the run's own, of the policy that is updated or of one before it."""
        return isinstance(self.config, RunConfig)

    @property
    def async_level(self) -> int:
        """How many iterations ahead responses are generated."""
        return self.config.async_level if isinstance(self.config, RunConfig) else 0

    def evaluates(self, iteration: int) -> bool:
        return iteration % self.config.eval.every == 0 or iteration == self.iterations

    def checkpoints(self, iteration: int) -> bool:
        return iteration % self.config.checkpoint.every == 0 or iteration == self.iterations


def credit_assignment(config: TrainingConfig, domains: Sequence[str], tokenizer: Any) -> CreditAssignment:
    """How the run's algorithm gives credit; `domains` are those of all its problems."""
    return CreditAssignment(
        algorithm=config.algorithm,
        groups=config.sampling.problems,
        max_tokens=config.sampling.max_tokens,
        domain_shares=domain_shares(domains),
        decode=partial(decode, tokenizer),
        encode=lambda text: tokenizer(text)["input_ids"],
    )


def run_paths(config: TrainingConfig) -> RunPaths:
    return RunPaths(home() / config.experiment / config.run_id)


@contextmanager
def locked(paths: RunPaths) -> Iterator[None]:
    """The run's folder, held by this process alone; the lock goes with the process, however it ends."""
    paths.root.mkdir(parents=True, exist_ok=True)
    with open(paths.root.with_name(f".{paths.root.name}.lock"), "w") as lock:  # beside it: the folder may be removed
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunInProgress(
                f"run {paths.root.name} is in progress in another process: wait for it, or change the seed"
            ) from None
        yield


def start_over(paths: RunPaths) -> None:
    """Removes what is there of a run; its folder is `locked`."""
    remove_atomically(paths.root)
    paths.root.mkdir()


def begin_or_resume(config: TrainingConfig, paths: RunPaths, fresh: bool) -> None:
    """Makes a run's folder ready for `open_run`: emptied if `fresh`, else as a crash has left it. Raises ConfigError
    for a run that an earlier version of this project has begun."""
    if fresh:
        start_over(paths)
    elif earlier := unfinished_predecessor(paths, config.deciding()):
        raise ConfigError(
            f"{earlier} holds this run as an earlier version has begun it, and its files can't be read any more: "
            f"finish it with that version, or remove it; {option('fresh')} leaves it there and starts {paths.root.name}"
        )
    write_json(paths.format, FORMAT)
    write_text(paths.config, to_yaml(config))


def _sweep(config: TrainingConfig) -> str:
    """Where the comparison with the other runs of its sweep is (Markdown)."""
    sweep = config.tags.sweep
    return (
        f" Compared with the others of sweep `{sweep}` in the run `report {sweep}` of this experiment." if sweep else ""
    )


def _started_by() -> str:
    """The command that makes this run again, and the page of its flow run where a server shows it (Markdown)."""
    given, server = runtime.flow_run.parameters or {}, addresses().get("prefect")
    if "preset" not in given:
        return ""
    flow = str(runtime.flow_run.flow_name).removeprefix("sgpo-")
    command = shlex.join(["python", "-m", f"flows.{flow}", given["preset"], *given.get("overrides", ())])
    page = f" ([its flow run]({server}/runs/flow-run/{runtime.flow_run.id}))" if server else ""
    return f"\n\nThe same run again: `{command}`{page}"


@contextmanager
def open_run(
    config: TrainingConfig,
    iterations: int,
    policy: str,
    judge_settings: JudgeSettings,
    sets: ProblemSets,
    paths: RunPaths,
    restarts: Sequence[Restart] = (),
) -> Iterator[Run]:
    """Engines that hold the run's policy and its judge, and the tracking run; new, or where the last checkpoint left
    them, or what was lost in this flow (`restarts`). Raises ConfigError when the judge does not pass its gate
    (judge.min_f1)."""
    attempt, settings = this_attempt(paths.root), config.model_dump(mode="json")
    tags = {**run_tags(config), "weights": weights_hash(Path(policy))}  # a name may stand for other weights elsewhere
    tags |= description(
        f"{config.algorithm.name} with the settings of preset `{config.preset}`, seed {config.seed}, judge "
        f"`{tags['judge']}`. All settings are among the parameters and in config.yaml.{_sweep(config)}{_started_by()}"
        f"\n\nThe responses in colors: `python -m flows.traces {paths.root}`"
    )
    tags |= source(f"flows/{'online' if isinstance(config, RunConfig) else 'offline'}.py")
    tracker = Tracker.open(config.experiment, config.run_id, paths.root, attempt, tags, settings)
    benchmarks = {name: (config.eval.sets[name].data, problems) for name, problems in sets.benchmarks.items()}
    try:
        log_problem_sets(tracker, (config.data, sets.train), benchmarks)
        with (
            system_metrics(tracker.run_id),
            engines_for(policy, config.model, config.cluster, with_engines(judge_settings)) as engines,
            open_judge(judge_settings) as judge,
        ):
            check_gate(judge_settings, judge)
            run = Run(config, iterations, paths, policy, sets, engines, judge, tracker, restarts)
            try:
                yield run
            finally:
                run.stream.close()
                run.grader.close()
    except BaseException as error:
        tracker.fail(error)
        raise


def finished_result(paths: RunPaths, iterations: int = 0) -> dict[str, Any] | None:
    """The result of a run that is complete; None where there is none, or more iterations are asked for."""
    result = read_json(paths.result) if paths.result.exists() else None
    return result if result is None or result["iterations"] >= iterations else None


def say_complete(paths: RunPaths, result: dict[str, Any], iterations: int) -> None:
    """Tells why nothing is run."""
    more = f" with {result['iterations']} iterations" if result["iterations"] > iterations else ""
    get_run_logger().info(f"complete already{more}: {paths.root} ({option('fresh')} starts over)")
