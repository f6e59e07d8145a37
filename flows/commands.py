"""What there is to run from the shell. All of it is known before the flows are imported, which takes seconds (Prefect,
Ray, torch): what is called later stands here by its name."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.arguments import Parser, Word, above_zero, numbers, whole
from sgpo_core.config.base import Settings
from sgpo_core.config.catalog import presets
from sgpo_core.config.evaluation import EvaluationConfig, load_evaluation
from sgpo_core.config.judge_eval import JudgeEvalConfig, load_judge_eval
from sgpo_core.config.judge_training import JudgeTrainingConfig, load_judge_training
from sgpo_core.config.offline import OfflineConfig, load_offline
from sgpo_core.config.run import RunConfig, load_run
from sgpo_core.config.sweep import SweepConfig, load_sweep, sweep_runs
from sgpo_core.config.warm_start import WarmStartConfig, load_warm_start
from tasks.gpus import check_gpus

Load = Callable[[str, Sequence[str]], Settings]


@dataclass(frozen=True, slots=True)
class Command:
    """`run` (module:function) is called with the arguments by name: the word, `overrides` where there are settings, and
    what `options` adds. Before, `load` makes settings of the same arguments, `has_gpus` refuses those that this machine
    has too few GPUs for, and `check` (module:function) looks for all that they need. A flow needs Prefect and MLflow
    and returns its result; others print theirs."""

    run: str
    word: Word | None
    options: Callable[[Parser], None]
    settings: type[Settings] | None = None
    load: Callable[[Mapping[str, Any]], Settings] | None = None
    has_gpus: Callable[[Any], None] | None = None
    check: str = ""
    is_flow: bool = True


def parser_of(name: str, program: str) -> Parser:
    """What reads the arguments of a command."""
    command = COMMANDS[name]
    parser = Parser(program, page(name), command.word, command.settings)
    command.options(parser)
    if command.settings:
        parser.add_argument("--show-config", action="store_true", help="print the resolved settings and stop")
    if command.is_flow:
        parser.add_argument("--json", action="store_true", help="print the result as JSON, as in a pipe")
    return parser


def page(name: str) -> str:
    """The docstring of a command's file, which is not imported."""
    source = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)) or ""


def about(name: str) -> str:
    """The first sentence of it, without the name that it begins with."""
    sentence = re.match(r"[\w-]+: (.*?[.?])(\s|$)", page(name), re.DOTALL)
    assert sentence, f"flows/{name}.py begins with its name and a sentence"
    return " ".join(sentence[1].split())


def _preset(group: str, default: str | None = None) -> Word:
    known = presets(group)
    return Word("preset", f"one of {', '.join(known)}" + (f" [{default}]" if default else ""), default, tuple(known))


def _loaded(load: Load) -> Callable[[Mapping[str, Any]], Settings]:
    return lambda given: load(given["preset"], given["overrides"])


def _sweep(preset: str, overrides: Sequence[str]) -> SweepConfig:
    config = load_sweep(preset, overrides)
    sweep_runs(config)  # the settings of each are read here, too
    return config


def _sweep_has_gpus(config: SweepConfig) -> None:
    check_gpus(max((run.config for run in sweep_runs(config)), key=lambda run: run.cluster.gpus + run.asked_judge.gpus))


def _sized(given: Mapping[str, Any]) -> Settings:
    load: Load = load_offline if given["flow"] == "offline" else load_run
    return load(given["preset"], given["overrides"])


def _fresh(parser: Parser) -> None:
    parser.add_argument("--fresh", action="store_true", help="start over, even if the same settings ran before")


def _fresh_offline(parser: Parser) -> None:
    _fresh(parser)
    parser.add_argument(
        "--max-bad-rows",
        dest="shortcuts",
        action="append",
        type="responses.max_bad_rows={}".format,
        metavar="N",
        help="the same as responses.max_bad_rows=N",
    )


def _fresh_sweep(parser: Parser) -> None:
    _fresh(parser)
    parser.add_argument(
        "--runs-only",
        action="store_true",
        help="make no report: several processes may share the runs of a sweep, also from several machines",
    )


def _report(parser: Parser) -> None:
    parser.add_argument("--sweep", required=True, metavar="NAME", help="the sweep's tag in MLflow")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where its files go [beside the sweep's runs]")


def _demo(parser: Parser) -> None:
    parser.add_argument(
        "--seeds", type=whole(1), default=3, metavar="N", help="runs of each algorithm on the hard setting [3]"
    )
    parser.add_argument("--fresh", action="store_true", help="run again what is complete")


def _traces(parser: Parser) -> None:
    parser.add_argument(
        "--iterations", type=numbers, metavar="N,N,...", help="which iterations, such as 1,10,30 [all that are there]"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where the pages go [RUN_DIR/traces]")


def _publish(parser: Parser) -> None:
    parser.add_argument("--to", metavar="ORG/NAME", help="the policy becomes this model of the hub")
    parser.add_argument("--dataset", metavar="ORG/NAME", help="the run's responses become this data set of the hub")
    parser.add_argument("--private", action="store_true", help="only you and your organization may see what is made")


def _evaluation(parser: Parser) -> None:
    parser.add_argument("--force", action="store_true", help="generate again, even if it was evaluated before")
    parser.add_argument("--rescore", action="store_true", help="grade and score what was generated; start no engine")


def _preflight(parser: Parser) -> None:
    parser.add_argument("--flow", choices=["offline", "online"], default="online", help="whose preset it is [online]")
    _machine(parser)


def _machine(parser: Parser) -> None:
    parser.add_argument("--gpu", metavar="NAME", help="a GPU by name, e.g. A100-80, H100-80, L4-24 [this machine's]")
    parser.add_argument("--gpus", type=whole(1), default=8, metavar="N", help="with --gpu: how many [8]")
    parser.add_argument(
        "--response-tokens",
        type=above_zero,
        metavar="N",
        help="of a response, on average [a quarter of sampling.max_tokens]",
    )


def _simulate(parser: Parser) -> None:
    _machine(parser)
    parser.add_argument(
        "--nodes", type=numbers, default=[1], metavar="N,N,...", help="how many such machines, such as 1,2,8 [1]"
    )
    parser.add_argument(
        "--run",
        type=Path,
        metavar="RUN_DIR",
        help="predict from what this run has measured, in place of a GPU's figures",
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="draw who works and who waits, into this folder")


def _theory(parser: Parser) -> None:
    parser.add_argument(
        "--group-size",
        type=whole(2, 16),
        default=8,
        metavar="G",
        help="responses a group, 2 to 16 (8 takes seconds, 16 half a minute) [8]",
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where the picture goes [theory/ in SGPO_HOME]")


_RUN_DIR = Word("run_dir", "the folder of a run, such as runs/demo/tiny-sgpo-s0-0c05667270")
_RUN = Word("run", "the folder or the id of a run that is complete")
_POLICY = Word("policy", "folder, id of a run or of a warm start, hub id, models:/NAME@ALIAS, or registered")

# A command has the name of its file in this folder; the shell takes a dash for its underscore.
COMMANDS = {
    "demo": Command("flows.demo:compare", None, _demo),
    "online": Command(
        "flows.online:online",
        _preset("online"),
        _fresh,
        RunConfig,
        _loaded(load_run),
        check_gpus,
        "flows.online:check",
    ),
    "offline": Command(
        "flows.offline:offline",
        _preset("offline"),
        _fresh_offline,
        OfflineConfig,
        _loaded(load_offline),
        check_gpus,
        "flows.offline:check",
    ),
    "sweep": Command(
        "flows.sweep:sweep",
        _preset("sweep"),
        _fresh_sweep,
        SweepConfig,
        _loaded(_sweep),
        _sweep_has_gpus,
        "flows.sweep:check",
    ),
    "report": Command("flows.report:report", None, _report, is_flow=False),
    "traces": Command("flows.traces:colored", _RUN_DIR, _traces, is_flow=False),
    "publish": Command("flows.publish:publish", _RUN, _publish, is_flow=False),
    "evaluation": Command(
        "flows.evaluation:benchmark_eval",
        _POLICY,
        _evaluation,
        EvaluationConfig,
        lambda given: load_evaluation(given["overrides"]),
    ),
    "judge_eval": Command(
        "flows.judge_eval:judge_eval",
        _preset("judge_eval", "default"),
        _fresh,
        JudgeEvalConfig,
        _loaded(load_judge_eval),
        check="flows.judge_eval:check",
    ),
    "judge_training": Command(
        "flows.judge_training:judge_training",
        _preset("judge_training"),
        _fresh,
        JudgeTrainingConfig,
        _loaded(load_judge_training),
        check="flows.judge_training:check",
    ),
    "warm_start": Command(
        "flows.warm_start:warm_start",
        _preset("warm_start"),
        _fresh,
        WarmStartConfig,
        _loaded(load_warm_start),
        check="flows.warm_start:check",
    ),
    "preflight": Command("flows.preflight:preflight", _preset("online"), _preflight, RunConfig, _sized, is_flow=False),
    "simulate": Command(
        "flows.simulate:simulated", _preset("online"), _simulate, RunConfig, _loaded(load_run), is_flow=False
    ),
    "theory": Command("flows.theory:theory", None, _theory, is_flow=False),
}
