"""What a POLICY stands for, and MLflow's registry on SQLite."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest
import torch
from safetensors.torch import save_file

from sgpo_core.config.base import ConfigError
from sgpo_core.storage.atomic import write_json, write_text
from sgpo_core.storage.weights import weights_hash
from tasks.tracking import registry
from tasks.tracking.policies import resolve
from tasks.tracking.server import open_client
from tasks.tracking.tracker import Tracker, new_attempt
from tests.small_models import save_small_model


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("SGPO_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def policy(folder: Path, value: float = 0.0) -> Path:
    folder.mkdir(parents=True)
    save_file({"w": torch.full((2,), value)}, folder / "model.safetensors")
    write_text(folder / "config.json", "{}")
    return folder


def run(name: str, folder: Path) -> str:
    tracker = Tracker.open("test", name, folder, new_attempt(), {}, {})
    return tracker.run_id


def test_the_hash_is_of_the_content_and_not_of_the_place(tmp_path: Path) -> None:
    one, same, other = policy(tmp_path / "one"), policy(tmp_path / "same"), policy(tmp_path / "other", 1.0)
    assert weights_hash(one) == weights_hash(same) != weights_hash(other)
    write_text(same / "README.md", "not what it computes")
    assert weights_hash(one) == weights_hash(same)
    write_text(same / "config.json", '{"x": 1}')
    assert weights_hash(one) != weights_hash(same)


def test_a_folder_and_a_run_by_its_folder_and_by_its_id(tmp_path: Path) -> None:
    folder = policy(tmp_path / "somewhere")
    assert resolve(str(folder)).folder == str(folder)
    start = policy(tmp_path / "warm-starts" / "tiny-0123456789")
    assert resolve("tiny-0123456789").folder == str(start)
    root = tmp_path / "sgpo" / "tiny-sgpo-s0-abc"
    policy(root / "checkpoints/000010/policy", 1.0)
    policy(root / "checkpoints/000020/policy", 2.0)
    for iteration, accuracy in ((10, 0.9), (20, 0.4)):
        write_json(root / f"iterations/{iteration:06d}/metrics.json", {"metrics": {"eval/x/avg_at_k": accuracy}})
    assert resolve("tiny-sgpo-s0-abc").folder == resolve(str(root)).folder == str(root / "checkpoints/000010/policy")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("/no/such/folder", "no folder with config.json"),
        ("no-such-run", "no run or warm start below"),
        ("nobody/nothing", "Without internet"),
        ("models:/none@candidate", "Registered models: none"),
        ("models:/none/1", "Registered models: none"),
        ("models:/none", "models:/NAME@ALIAS or models:/NAME/VERSION"),
    ],
)
def test_what_is_not_there_is_said(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        resolve(name)


def test_versions_and_aliases(tmp_path: Path) -> None:
    first = save_small_model(tmp_path / "first")
    second = save_small_model(tmp_path / "second", dtype=torch.bfloat16)
    run_id = run("one", tmp_path)
    one = registry.register("tiny", first, run_id)
    assert registry.register("tiny", first, run_id).version == one.version == "1"  # finished twice after a crash
    registry.register("tiny", first, run_id, registry.CHAMPION)
    assert registry.register("tiny", second, run("two", tmp_path)).version == "2"
    found = [(v.model, v.alias, v.version) for v in registry.candidates_and_champions()]
    assert found == [("tiny", "champion", "1"), ("tiny", "candidate", "2")]
    for name, folder in (
        ("models:/tiny@champion", first),
        ("models:/tiny@candidate", second),
        ("models:/tiny/1", first),
    ):
        assert resolve(name).weights == weights_hash(folder)
        assert weights_hash(Path(resolve(name).folder)) == weights_hash(folder)


def test_a_worse_policy_is_no_candidate(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def candidate_after(number: int, avg_at_k: float, protocol: str) -> str:
        folder, run_id = policy(tmp_path / str(number), number), run(str(number), tmp_path)
        for _ in range(2):  # a run that crashes in its last second does it again
            registry.register("tiny", folder, run_id, score=registry.Score(avg_at_k, protocol))
        return registry.find("models:/tiny@candidate").version

    runs = [(0.5, "a"), (0.4, "a"), (0.5, "a"), (0.6, "a"), (0.1, "b")]  # b: evaluated in another way
    assert [candidate_after(n, *measured) for n, measured in enumerate(runs)] == ["1", "1", "1", "4", "5"]
    assert "version 2 of tiny (avg@k 0.400) is not its candidate: version 1 has 0.5000" in caplog.text


def test_metrics_of_a_version_are_on_its_page(tmp_path: Path) -> None:
    version = registry.register("tiny", save_small_model(tmp_path / "first"), run("one", tmp_path))
    registry.log_version_metrics(version, {"eval/x/avg_at_k": 0.5}, step=3)
    logged = open_client().get_logged_model(version.model_id)
    assert [(m.key, m.value, m.step) for m in logged.metrics] == [("eval/x/avg_at_k", 0.5, 3)]


@pytest.mark.parametrize("chats", [True, False], ids=["with a chat template", "without"])
def test_a_version_answers_as_an_mlflow_model(tmp_path: Path, chats: bool) -> None:
    folder = save_small_model(tmp_path / "policy")
    if not chats:
        (folder / "chat_template.jinja").unlink()
    version = registry.register("small", folder, run("one", tmp_path))
    model = mlflow.pyfunc.load_model("models:/small@candidate")
    assert model.metadata.model_id == version.model_id and model.metadata.signature is not None
    if chats:
        [reply] = model.predict({"messages": [{"role": "user", "content": "2 + 3"}], "max_tokens": 4})
        assert reply["choices"][0]["message"]["role"] == "assistant" and reply["usage"]["completion_tokens"] == 4
    else:
        [text] = model.predict(["2 + 3"])
        assert text.startswith("2 + 3") and len(text) > len("2 + 3")
    assert weights_hash(version.folder()) == weights_hash(folder)


def test_a_policy_that_mlflow_can_not_load_is_kept_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = policy(tmp_path / "policy")  # no tokenizer
    version = registry.register("bare", folder, run("one", tmp_path))
    assert weights_hash(version.folder()) == weights_hash(folder) and "can't load it as a model" in caplog.text
