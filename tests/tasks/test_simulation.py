"""The page of simulated iterations: of a machine that is only named, and by what a run has measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sgpo_core.config.base import ConfigError
from sgpo_core.config.loading import to_yaml
from sgpo_core.config.run import load_run
from sgpo_core.sizing.hardware import GPUS
from sgpo_core.storage import rollout_table
from sgpo_core.storage.atomic import write_json
from sgpo_core.storage.run_dir import RunPaths
from sgpo_core.types import Judgment, Verdict
from tasks.simulation import draw_timelines, estimates_page, run_page
from tests.helpers import run_module
from tests.records import WRONG, group, ints, rollout


def recorded(folder: Path, *overrides: str, judged: bool = True, iterations: int = 6) -> Path:
    """A run whose engines take 10 ms a step: 8 responses of 30 to 35 tokens in each of 4 groups, two engines."""
    config, paths = load_run("tiny", ["sampling.problems=4", *overrides]), RunPaths(folder)
    paths.root.mkdir()
    paths.config.write_text(to_yaml(config))
    for number in range(1, iterations + 1):
        judgment = Judgment(Verdict(1)) if judged else None
        length = ints(*range(29 + number))
        sampled = [rollout(i, token_ids=length, grade=WRONG, judgment=judgment) for i in range(8)]
        paths.iteration(number).mkdir(parents=True)
        rollout_table.write(paths.rollouts(number), [group(g, sampled) for g in range(4)])
        seconds = {"generate": (29 + number) / 100, "update": 0.5, "sync": 0.1, "evaluate": 0.6}
        metrics = {f"time/{name}_s": took for name, took in seconds.items()}
        metrics |= {"time/iteration_s": sum(seconds.values()) + 0.2, "group/zero_signal_frac": 0.0}
        metrics |= {"judge/calls": 32.0 if judged else 0.0, "judge/seconds": 0.032 if judged else 0.0}
        write_json(paths.metrics(number), {"metrics": metrics})
        tokens = np.repeat(30, 64 * 4)  # 128 for each engine of 64 slots
        pq.write_table(pa.table({"tokens": tokens}), paths.evaluation(number, "chains"))
    return folder


def test_the_page_of_a_named_machine(tmp_path: Path) -> None:
    text, best = estimates_page(load_run("7b", []), GPUS["H100-80"], 8, [1, 2], 768)
    assert text.count("one-step-off") == 2 and "8 x H100-80" in text and "2 x 8 x H100-80" in text
    assert text.count("as set: serial") == 1, "the preset is for one node"
    rows = [line.split() for line in text.splitlines() if line.startswith(("serial", "one-step-off", "colocated"))]
    over = [[float(share.strip("%")) for share in row[-2:]] for row in rows]
    assert len(over) == 6 and all(0 < judging < grpo for judging, grpo in over), "GRPO has the judge's GPUs as well"
    assert "Simulated, not measured" in text and "15% of them judged" in text
    assert [p.gpus for p in best] == [8, 8, 8]
    picture = draw_timelines(tmp_path / "simulate.png", best)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_without_a_judge_there_is_nothing_to_compare() -> None:
    text, _ = estimates_page(load_run("7b", ["algorithm=grpo"]), GPUS["H100-80"], 8, [1], 768)
    rows = [line for line in text.splitlines() if line.startswith(("serial", "one-step-off", "colocated"))]
    assert len(rows) == 3 and all(row.split()[-2:] == ["-", "-"] for row in rows) and "0% of them judged" in text


@pytest.mark.parametrize(
    ("preset", "gpu", "said"),
    [("tiny", "H100-80", "runs on the CPU"), ("7b", "L4-24", "1 x L4-24: no split fits")],
)
def test_what_can_not_be_simulated_is_said(preset: str, gpu: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        estimates_page(load_run(preset, []), GPUS[gpu], 1, [1], 768)


def test_a_run_predicts_what_it_was_not_fitted_on(tmp_path: Path) -> None:
    """16 responses for each engine at a time, of 32.5 tokens: steps and sequences share the 10 ms. An evaluation has 64
    at a time, so a step takes 5 ms + 64 x 5/16 ms = 25 ms; two waves of 30 steps, six times: 9 s. Measured were 3.6."""
    text = run_page(load_run("tiny", ["sampling.problems=4"]), recorded(tmp_path / "run"))
    assert "Fitted to 6 iterations of run: a step of an engine takes" in text
    assert "6 evaluations" in text and "iterations 4 to 6" in text and "100% of the tokens" in text
    [line] = [line for line in text.splitlines() if line.startswith("6 evaluations")]
    assert float(line.split()[2]) == pytest.approx(9, rel=0.1) and float(line.split()[3]) == 3.6
    # An iteration is .325 + .5 + .1 + .2 s.
    assert "These settings: 1.1" in text


@pytest.mark.parametrize(
    ("made", "overrides", "said"),
    [
        ([], ["async_level=1"], "share the cores"),
        ([], ["sampling.max_tokens=64", "judge=reference"], "has another sampling.max_tokens, judge.name: of that"),
        (["async_level=1"], [], "side by side"),
        (["algorithm=grpo"], [], "judged nothing"),
    ],
)
def test_what_a_run_can_not_say(tmp_path: Path, made: list[str], overrides: list[str], said: str) -> None:
    folder = recorded(tmp_path / "run", *made, judged=not made)
    with pytest.raises(ConfigError, match=said):
        run_page(load_run("tiny", ["sampling.problems=4", *overrides]), folder)


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not the folder of an online run"):
        run_page(load_run("tiny"), tmp_path)
    with pytest.raises(ConfigError, match="3 iterations with responses and metrics; 4 are needed"):
        run_page(load_run("tiny"), recorded(tmp_path / "run", iterations=3))


def test_from_the_shell(tmp_path: Path) -> None:
    done = run_module(
        "flows.simulate", "7b-lora", "--gpu", "H100-80", "--gpus", "1", "--out", str(tmp_path), home=tmp_path
    )
    assert done.returncode == 0 and "colocated" in done.stdout, done.stderr
    assert f"picture   {tmp_path / 'simulate.png'}" in done.stdout and (tmp_path / "simulate.png").exists()
    for arguments, said in (
        (["--gpu", "H100-80", "--nodes", "0"], "--nodes 0"),
        (["--gpu", "H100-80", "--run", str(tmp_path)], "--run goes without --gpu"),
        ([], "name one, e.g. --gpu H100-80"),
    ):
        failed = run_module("flows.simulate", "7b", *arguments, home=tmp_path)
        assert failed.returncode == 2 and said in failed.stderr
