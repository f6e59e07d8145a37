"""docs/notebook.ipynb from its first cell to its last, and the functions that it uses."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows import notebook
from sgpo_core.config.base import ConfigError
from tests.helpers import REPOSITORY, SMALL, shell_environment, start_from


@pytest.fixture
def prepared(engines: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook, "_prepare", lambda: None)  # it is done once a process, and `engines` has done it


def cells() -> list[str]:
    read = json.loads((REPOSITORY / "docs/notebook.ipynb").read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in read["cells"] if cell["cell_type"] == "code"]


def test_every_cell_runs(
    prepared: None, policy: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a loop that is running, as in a kernel, with less to do."""
    matplotlib.use("Agg")
    monkeypatch.chdir(REPOSITORY / "docs")
    seen: dict[str, Any] = {}

    async def kernel() -> None:
        for cell in cells():
            exec(cell.replace('settings = ["iterations=20", "eval.every=5"]', f"settings = {small}"), seen)

    small = [*SMALL, *start_from(policy)]
    asyncio.run(kernel())
    assert seen["settings"] == small
    said = capsys.readouterr().out
    assert "GRPO rewards 0.00 0.00 0.00 0.00 advantages 0.00 0.00 0.00 0.00" in said
    assert "SGPO rewards 0.01 0.50 0.97 0.03" in said, "sigma(-5), sigma(0), sigma(10/3), sigma(-10/3)"

    result = seen["runs"]["sgpo"]
    table = notebook.metrics(result)
    assert list(table.index) == [0, 1, 2, 3, 4] and table.index.name == "iteration"
    assert table["eval/chains/avg_at_k"].dropna().index.tolist() == [0, 2, 4]
    assert table["eval/chains/avg_at_k"][4] == result["final_metrics"]["eval/chains/avg_at_k"]
    assert notebook.metrics(result["run_id"]).equals(table) and notebook.metrics(Path(result["run_dir"])).equals(table)
    assert len(notebook.responses(result)) == 16
    assert notebook.responses(result).equals(notebook.responses(result["run_id"], 4))
    assert seen["first"]["policy_version"].tolist() == [0] * 16


def test_what_is_wrong_is_an_error_before_anything_starts(session_home: Path) -> None:
    for words, said in (
        (["onlin"], "no command 'onlin': did you mean online?"),
        (["online", "tinny"], "did you mean tiny"),
        (["online", "tiny", "algorithm.credit.bata=5"], "did you mean algorithm.credit.beta?"),
        (["online", "--freshh"], "there is no option --freshh"),
    ):
        with pytest.raises(ConfigError, match=said.replace("?", r"\?")):
            notebook.run(*words)
    with pytest.raises(ConfigError, match="nobody: no folder of a run, and no run below"):
        notebook.metrics("nobody")


_LEAVES = """
import ray
from flows import notebook
notebook._prepare()
notebook._keep_engines()
from tasks.engines import cluster

@ray.remote(num_cpus=0)
class Engine:
    def answer(self):
        return "here"

[engine] = cluster.kept_actors("an engine", lambda: (Engine.remote(),))
print(ray.get(engine.answer.remote()))
end = ray.kill
ray.kill = lambda actor: (end(actor), print("ended", flush=True))
"""


def test_a_process_that_does_not_stop_its_engines_ends_them(tmp_path: Path) -> None:
    """While Ray is there: afterwards Ray would look for any other cluster of this machine."""
    done = subprocess.run(
        [sys.executable, "-c", _LEAVES],
        cwd=REPOSITORY,
        env=shell_environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.stdout.split() == ["here", "ended"] and done.returncode == 0, done.stderr


def test_the_last_complete_iteration_is_chosen(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    for iteration in (1, 2):
        folder = tmp_path / f"iterations/{iteration:06d}"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"response": [f"of {iteration}"]}), folder / "rollouts.parquet")
    (tmp_path / "iterations/000001/metrics.json").touch()
    assert notebook.responses(tmp_path)["response"].tolist() == ["of 1"], "2 is only generated"
    assert notebook.responses(tmp_path, 2)["response"].tolist() == ["of 2"]


def test_an_iteration_without_responses_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    with pytest.raises(ConfigError, match=r"no responses of iteration 3; it has those of \[\]"):
        notebook.responses(tmp_path, 3)


def test_commands_that_print(capsys: pytest.CaptureFixture[str]) -> None:
    assert notebook.run("online", "tiny", "algorithm=grpo", "--show-config") == {}
    assert "scope: none" in capsys.readouterr().out
    assert notebook.run("preflight", "7b", "--gpu", "H100-80", "--gpus", "8") == {}
    assert "FITS" in capsys.readouterr().out
