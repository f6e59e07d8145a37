"""A finished run on a hub on loopback: what is sent, what is refused, and that others can load it."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import numpy as np
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import _http
from transformers import PreTrainedTokenizerFast, pipeline
from transformers.utils import logging as transformers_logging

from sgpo_core.chains.policy import save_random_policy
from sgpo_core.config.base import ConfigError
from sgpo_core.config.loading import to_yaml
from sgpo_core.config.offline import load_offline
from sgpo_core.config.run import load_run
from sgpo_core.config.warm_start import load_warm_start
from sgpo_core.storage import rollout_table
from sgpo_core.storage.atomic import write_json, write_text
from sgpo_core.storage.digests import seal
from sgpo_core.storage.run_dir import RunPaths
from sgpo_core.types import Judgment, Verdict
from tasks.data import needs_own_tokenizer
from tasks.models import stand_in
from tasks.publishing import _public_reason, publish
from tasks.reports.data_card import COLUMNS
from tasks.reports.model_card import model_card
from tests.helpers import run_module
from tests.loopback_hub import Hub, loopback_hub, point_to
from tests.records import floats, group, ints, rollout
from tests.small_models import save_small_model

MODEL, DATA = "org/policy", "org/responses"
RIGHT, STRANGER, WRONG = "hf_right_token", "hf_stranger_token", "hf_wrong_token"
REASON = "http://box-7:8000/v1 answered 500"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty hub, and the token that may write to it."""
    monkeypatch.setenv("SGPO_HOME", str(tmp_path))
    with loopback_hub() as server:
        server.tokens = {RIGHT: {MODEL, DATA}, STRANGER: set()}
        point_to(server, tmp_path, monkeypatch)
        monkeypatch.setenv("HF_TOKEN", RIGHT)
        _http.close_session()
        yield server
    _http.close_session()


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    """A run of two iterations that is complete; its model came from a folder of this machine."""
    config = load_run("tiny", ["model.warm_start=null", f"model.path={tmp_path}/models/mine", "iterations=2"])
    paths = RunPaths(tmp_path / "sgpo" / config.run_id)
    write_text(paths.config, to_yaml(config))
    for iteration in (1, 2):
        judged = rollout(1, text="no", token_ids=ints(4), judgment=Judgment(Verdict.abstain(REASON)))
        responses = [rollout(0, text="7", token_ids=ints(5, 6), rollout_logprobs=floats(-0.5, -0.25)), judged]
        rollout_table.write(paths.rollouts(iteration), [group(0, responses), group(1, responses)])
    save_small_model(paths.policy)
    seal(paths.policy)
    write_text(paths.policy / "README.md", model_card(config, 2, {}, {}, "abc123", "0123456789"))
    write_json(paths.result, {"run_id": config.run_id, "iterations": 2})
    return paths


def refusal(run: RunPaths | str, to: str | None = MODEL, dataset: str | None = None, private: bool = False) -> str:
    with pytest.raises(ConfigError) as refused:
        publish(str(run.root) if isinstance(run, RunPaths) else run, to, dataset, private)
    said = str(refused.value)
    assert "\n" not in said and RIGHT not in said and STRANGER not in said and WRONG not in said
    return said


def test_the_policy_arrives_as_it_is_and_is_called_by_its_new_name(hub: Hub, run: RunPaths) -> None:
    write_text(run.policy / "notes.txt", "mine")
    assert publish(run.root.name, MODEL, None, False) == [f"{hub.url}/{MODEL}"]
    sent = hub.files("models", MODEL)
    card = sent.pop("README.md").decode()
    assert sent == {file.name: file.read_bytes() for file in run.policy.iterdir() if file.name in sent}
    ours = {"README.md", "notes.txt", "digests.json"}
    assert set(sent) == {file.name for file in run.policy.iterdir()} - ours
    assert card == (run.policy / "README.md").read_text().replace('"policy"', f'"{MODEL}"')
    assert f'pipeline("text-generation", "{MODEL}")' in card
    assert not hub.repositories["models", MODEL].private
    tokens = {r.headers.get("Authorization") for r in hub.requests if r.method == "PUT"}
    assert tokens == {None}, "the host of large files sees no token"


def test_nothing_tells_of_the_machine(hub: Hub, run: RunPaths, tmp_path: Path) -> None:
    assert f"{tmp_path}/models/mine" in run.config.read_text()
    publish(str(run.root), MODEL, DATA, False)
    sent = {**hub.files("models", MODEL), **{f"data/{p}": d for p, d in hub.files("datasets", DATA).items()}}
    assert len(sent) > 7
    telling = [str(tmp_path), str(Path.home()) + "/", "box-7", RIGHT]
    assert [(path, word) for path, data in sent.items() for word in telling if word.encode() in data] == []


def test_the_same_again_sends_nothing(hub: Hub, run: RunPaths) -> None:
    pages = publish(str(run.root), MODEL, DATA, False)
    commits = {key: list(found.commits) for key, found in hub.repositories.items()}
    hub.requests.clear()
    assert publish(str(run.root), MODEL, DATA, False) == pages
    assert {key: list(found.commits) for key, found in hub.repositories.items()} == commits
    assert [r.path for r in hub.requests if r.method == "PUT" or "/commit/" in r.path] == []


def test_what_has_changed_is_sent(hub: Hub, run: RunPaths) -> None:
    publish(str(run.root), MODEL, None, False)
    hub.requests.clear()
    with (run.policy / "README.md").open("a") as card:
        card.write("\nOnce more.\n")
    publish(str(run.root), MODEL, None, False)
    assert hub.files("models", MODEL)["README.md"].endswith(b"Once more.\n")
    assert [r.path for r in hub.requests if r.method == "PUT"] == []


def test_what_an_earlier_publication_left_goes(hub: Hub, run: RunPaths) -> None:
    (run.policy / "adapter").mkdir()
    write_text(run.policy / "adapter/adapter_config.json", '{"base_model_name_or_path": "x"}')
    publish(str(run.root), MODEL, DATA, False)
    assert {"adapter/adapter_config.json", "config.json"} <= hub.files("models", MODEL).keys()
    mine = list(hub.repositories["models", MODEL].commits.values())[-1]
    mine["results/evaluation.json"] = b"{}"  # put there by its owner
    (run.policy / "adapter/adapter_config.json").unlink()
    write_json(run.result, {"run_id": "x", "iterations": 1})
    publish(str(run.root), MODEL, DATA, False)
    assert "config.json" in (sent := hub.files("models", MODEL)) and "adapter/adapter_config.json" not in sent
    assert "results/evaluation.json" in sent
    assert set(hub.files("datasets", DATA)) == {"README.md", "data/iteration-000001.parquet"}


def test_nothing_is_sent_before_both_places_are_there(hub: Hub, run: RunPaths) -> None:
    hub.add("datasets", DATA, {})
    assert "org/responses is there already, and public" in refusal(run, MODEL, DATA, private=True)
    assert hub.files("models", MODEL) == {}


def test_private(hub: Hub, run: RunPaths) -> None:
    publish(str(run.root), MODEL, DATA, True)
    publish(str(run.root), MODEL, DATA, True)
    assert [repository.private for repository in hub.repositories.values()] == [True, True]


def test_what_is_public_is_not_taken_for_private(hub: Hub, run: RunPaths) -> None:
    hub.add("models", MODEL, {})
    assert "is there already, and public" in refusal(run, private=True)
    assert hub.files("models", MODEL) == {}


@pytest.mark.parametrize("token", [None, STRANGER, WRONG])
@pytest.mark.parametrize("there", [True, False], ids=["a repository of others", "none"])
def test_without_the_right_token(
    hub: Hub, run: RunPaths, token: str | None, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if there:
        hub.add("models", MODEL, {})
    monkeypatch.delenv("HF_TOKEN")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    said = refusal(run)
    reason = {None: "no token of the hub is set", STRANGER: "HF_TOKEN may not write there"}
    assert reason.get(token, "the hub does not accept HF_TOKEN") in said
    assert f"set HF_TOKEN to one that may write to org ({hub.url}/settings/tokens)" in said


def test_a_hub_that_is_out_of_reach(hub: Hub, run: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert "HF_HUB_OFFLINE forbids to ask the hub" in refusal(run)
    with loopback_hub() as other:
        pass
    monkeypatch.setattr(constants, "ENDPOINT", other.url)
    assert f"{other.url} does not answer (ConnectError)" in refusal(run)


def test_what_is_no_complete_run(hub: Hub, run: RunPaths, tmp_path: Path) -> None:
    assert "no folder of a run" in refusal(str(tmp_path)) and "no run below" in refusal("tiny-sgpo-s0-none")
    assert "--to policy: ORG/NAME is wanted" in refusal(run, "policy")
    assert "where to?" in refusal(run, None)
    run.result.unlink()
    assert "is not complete: the command that began the run goes on with it" in refusal(run)
    assert hub.requests == []


def damaged_weights(run: RunPaths) -> None:
    weights = run.policy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)


def a_path(run: RunPaths) -> None:
    (run.policy / "README.md").write_text("From /home/jane/models/mine.")


def an_old_card(run: RunPaths) -> None:
    """Whose settings have addresses and folders, wherever they are."""
    settings = ["judge.endpoint.url=http://10.0.0.3:8000/v1", "cluster.sync_dir=/here/jane/sync"]
    run.config.write_text(to_yaml(load_run("tiny", settings)))
    (run.policy / "README.md").write_text("sync_dir: /here/jane/sync\n")


def a_secret(run: RunPaths) -> None:
    (run.policy / "README.md").write_text(f"Use {os.environ['HF_TOKEN']}.")


def no_card(run: RunPaths) -> None:
    (run.policy / "README.md").unlink()


def another_version(run: RunPaths) -> None:
    run.config.write_text("no_such_setting: 1\n")


def its_own_folder_in_the_vocabulary(run: RunPaths) -> None:
    (run.policy / "digests.json").unlink()
    (run.policy / "tokenizer.json").write_text(json.dumps({"x": str(run.root)}))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (damaged_weights, "model.safetensors is not what was written"),
        (a_path, "README.md, line 1 holds /home/jane/models/mine"),
        (an_old_card, "README.md, line 1 holds /here/jane/sync"),
        (a_secret, "README.md, line 1 holds a secret"),
        (no_card, "README.md is missing"),
        (another_version, "can't be read, an earlier version may have written it: look at no_such_setting"),
        (its_own_folder_in_the_vocabulary, "tokenizer.json, line 1 holds"),
    ],
)
def test_what_is_not_sent(hub: Hub, run: RunPaths, harm: Callable[[RunPaths], None], said: str) -> None:
    harm(run)
    assert said in refusal(run)
    assert hub.requests == []


def test_a_run_that_goes_on_is_published_as_it_was_when_it_was_complete(hub: Hub, run: RunPaths) -> None:
    (run.checkpoint(3) / "policy").mkdir(parents=True)
    (run.checkpoint(3) / "policy" / "model.safetensors").write_bytes(b"newer")
    seal(run.checkpoint(3))
    publish(str(run.root), MODEL, None, False)
    assert hub.files("models", MODEL)["model.safetensors"] == (run.policy / "model.safetensors").read_bytes()


def test_a_stand_in_is_called_one(hub: Hub, run: RunPaths) -> None:
    config = load_run("smol", ["model=smol-q4_1", "iterations=2"])
    write_text(run.config, to_yaml(config))
    assert f"does not say that the training began with {stand_in.NAME}" in refusal(run)
    write_text(run.policy / "README.md", model_card(config, 2, {}, {}, "abc123", "0123456789"))
    publish(str(run.root), MODEL, None, False)


def test_adapters_do_not_tell_where_their_model_lay(hub: Hub, run: RunPaths) -> None:
    adapter = run.policy / "adapter" / "adapter_config.json"
    adapter.parent.mkdir()
    adapter.write_text(json.dumps({"base_model_name_or_path": "/home/jane/models/mine", "r": 8}))
    publish(str(run.root), MODEL, None, False)
    assert json.loads(hub.files("models", MODEL)["adapter/adapter_config.json"]) == {
        "base_model_name_or_path": "mine",
        "r": 8,
    }


def received(hub: Hub, kind: str, name: str, folder: Path) -> Path:
    """What has arrived, as somebody downloads it."""
    for path, data in hub.files(kind, name).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def test_pipeline_loads_it_without_a_warning(
    hub: Hub, run: RunPaths, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    publish(str(run.root), MODEL, None, False)
    folder = received(hub, "models", MODEL, tmp_path / "received")
    assert not needs_own_tokenizer(folder, "Compute 284471 + 936979.")
    transformers_logging.set_verbosity_warning()
    capfd.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generate = pipeline("text-generation", str(folder))
    assert "warn" not in (said := capfd.readouterr().err.lower()) and "[transformers]" not in said
    assert generate("Compute")[0]["generated_text"].startswith("Compute")


def test_the_embedded_policy_needs_the_tokenizer_that_its_card_names(tmp_path: Path) -> None:
    """For its type, transformers puts another tokenizer in place of the one that lies there."""
    save_random_policy(load_warm_start("tiny"), tmp_path)
    problem = "Compute 284471 + 936979.\n"
    assert needs_own_tokenizer(tmp_path, problem)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    generate = pipeline("text-generation", str(tmp_path), tokenizer=tokenizer)
    assert generate.tokenizer.decode(generate.tokenizer(problem)["input_ids"]) == problem


def test_a_data_set_of_all_responses(hub: Hub, run: RunPaths, tmp_path: Path) -> None:
    assert publish(str(run.root), None, DATA, False) == [f"{hub.url}/datasets/{DATA}"]
    folder = received(hub, "datasets", DATA, tmp_path / "received")
    loaded = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.column_names == list(COLUMNS) == ["iteration", *rollout_table.SCHEMA.names]
    assert loaded["iteration"][:] == [1] * 4 + [2] * 4 and loaded["response"][:] == ["7", "no"] * 4
    assert loaded["token_ids"][0] == [5, 6] and np.allclose(loaded["rollout_logprobs"][0], [-0.5, -0.25])
    assert loaded["verdict_reason"][:2] == [None, "the judge's server answered 500"]
    assert loaded.features["token_ids"].feature.dtype == "int32" and loaded.features["advantage"].dtype == "float64"
    card = (folder / "README.md").read_text()
    assert "those of `chains`, which a program generates" in card
    assert "8 responses of 2 iterations of sgpo" in card and f'load_dataset("{DATA}", split="train")' in card
    assert "from the policy, which began as `mine`" in card and "## License" in card


@pytest.mark.parametrize(
    ("reason", "published"),
    [
        (None, None),
        ("the judge gave no verdict", "the judge gave no verdict"),
        ("3 of 5 votes: the judge's verdict is not clear", "3 of 5 votes: the judge's verdict is not clear"),
        (
            "http://box:1/v1 answered 400 Bad Request: no /home/a/judge on box",
            "the judge's server answered 400 Bad Request",
        ),
        ("http://box:1/v1 did not answer", "the judge's server failed"),
        ("no model /lustre/a/judge", "the judge's server failed"),
    ],
)
def test_what_a_judge_s_server_said_is_not_published(reason: str | None, published: str | None) -> None:
    assert _public_reason(reason) == published


def test_recorded_responses_name_their_source(hub: Hub, run: RunPaths) -> None:
    write_text(run.config, to_yaml(load_offline("tiny", ["responses.source=org/recorded"])))
    publish(str(run.root), None, DATA, False)
    card = hub.files("datasets", DATA)["README.md"].decode()
    assert "They were recorded before the training (`org/recorded`)" in card


def test_responses_that_are_damaged(hub: Hub, run: RunPaths) -> None:
    data = run.rollouts(2).read_bytes()
    run.rollouts(2).write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    assert "000002/rollouts.parquet is missing or damaged" in refusal(run, MODEL, DATA)
    assert hub.requests == []


def test_the_command(hub: Hub, run: RunPaths, tmp_path: Path) -> None:
    """The hub's address and the token as a user sets them, in a process of its own."""
    environment = {"HF_ENDPOINT": hub.url, "HF_TOKEN": RIGHT, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
    done = run_module("flows", "publish", run.root.name, "--to", MODEL, "--private", home=tmp_path, **environment)
    assert (done.returncode, done.stdout) == (0, f"{hub.url}/{MODEL}\n"), done.stderr
    assert RIGHT not in done.stdout + done.stderr and hub.repositories["models", MODEL].private
    done = run_module("flows.publish", "none", "--to", MODEL, home=tmp_path, **environment)
    assert done.returncode == 2 and done.stderr.startswith("error: none: no folder of a run")
