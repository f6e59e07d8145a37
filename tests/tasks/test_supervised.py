"""Supervised training that is interrupted goes on, to the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pytest

from flows.warm_start import ready, warm_start
from sgpo_core.config.warm_start import load_warm_start
from sgpo_core.storage.weights import weights_hash
from tasks.supervised import loop
from tasks.supervised import warm_start as tasks
from tasks.supervised.lessons import ChainsLessons
from tasks.tracking.server import tracking_uri
from tasks.tracking.tracker import Tracker
from tests.helpers import prefect_page

# Two rounds: the gate can't be passed before the second one's test, which is made to pass.
SETTINGS = ["curriculum=[{steps: 30, slip_rate: 0.3}]", "gate_samples=32", "gate_steps=10", "gate_rounds=1"]


class Interrupted(Exception):
    pass


@pytest.fixture
def shut_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate opens at the second test; every point of the loss curve is saved."""
    monkeypatch.setattr(loop, "_SECONDS_A_SAVE", -1.0)
    measure = ChainsLessons.measure

    def measured(self: ChainsLessons, responses: Any) -> dict[str, float]:
        return measure(self, responses) | {"warm_start/agreement": float(self.tested == 40)}

    batch = ChainsLessons.batch

    def noted(self: ChainsLessons, step: int, slip_rate: float) -> Any:
        self.tested = step + 1
        return batch(self, step, slip_rate)

    monkeypatch.setattr(ChainsLessons, "tested", 0, raising=False)
    monkeypatch.setattr(ChainsLessons, "measure", measured)
    monkeypatch.setattr(ChainsLessons, "batch", noted)


@pytest.mark.parametrize("at", [35])  # in the second round
def test_it_goes_on_to_the_same_weights(
    engines: None, shut_once: None, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [*SETTINGS, f"seed={at}"]  # a result of its own
    kept = tasks.kept(load_warm_start("tiny", settings))
    whole = weights_hash(Path(warm_start("tiny", settings)["run_dir"]))
    assert not kept.saved.folder.exists()

    batch, made = ChainsLessons.batch, []

    def interrupted(self: ChainsLessons, step: int, slip_rate: float) -> Any:
        made.append(step)
        if step == at and made.count(at) == 1:
            raise Interrupted
        return batch(self, step, slip_rate)

    monkeypatch.setattr(ChainsLessons, "batch", interrupted)
    with pytest.raises(Interrupted):
        warm_start("tiny", settings, fresh=True)
    assert kept.saved.folder.is_dir()
    made.clear()
    made.append(at)
    assert kept.result() is not None  # of the first run; fresh leaves it until there is another
    kept.folder.rename(kept.folder.with_name(f"{kept.folder.name}.whole"))
    again = ready(load_warm_start("tiny", settings))  # as a run does that starts from it
    assert weights_hash(Path(again)) == whole
    assert min(made[1:]) > 0  # it did not begin anew
    assert not kept.saved.folder.exists()


def test_state_of_an_earlier_version_is_not_read(tmp_path: Path) -> None:
    class Nobody:
        def on_all_ranks(self, *_: Any) -> None:
            raise AssertionError("nothing is to be loaded")

    state = loop.SavedState(tmp_path / "state")
    (state.folder / "engine/state").mkdir(parents=True)
    (state.folder / "state.json").write_text('{"done": 7, "layout": {"trainer_ranks": 1}}')
    assert state.load(Nobody()) == 0  # type: ignore[arg-type]


def test_nothing_counts_as_made_that_mlflow_has_not_been_told(engines: None, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = [*SETTINGS, "gate_agreement=0", "seed=36"]
    kept = tasks.kept(load_warm_start("tiny", settings))

    def away(tracker: Tracker) -> None:
        raise RuntimeError("MLflow does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(Tracker, "finish", away)
        with pytest.raises(RuntimeError, match="MLflow does not answer"):
            warm_start("tiny", settings)
    assert not kept.folder.exists()
    result = warm_start("tiny", settings)
    assert Path(result["run_dir"]) == kept.folder
    key = kept.config.key
    assert prefect_page(f"{key}-progress") == "100"
    assert prefect_page(key).startswith(f"# Warm start {key}\n") and f"model.path={kept.folder}`" in prefect_page(key)
    assert mlflow.MlflowClient(tracking_uri()).get_run(result["mlflow_run_id"]).info.status == "FINISHED"
