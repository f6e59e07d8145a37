"""The Hugging Face hub on loopback: models and data sets by id, and in words whatever can go wrong with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import huggingface_hub
import pytest
from huggingface_hub import constants, file_download
from huggingface_hub.utils import _http

from sgpo_core.config.base import ConfigError
from sgpo_core.config.data import DataSettings
from sgpo_core.data import hub as client
from sgpo_core.data.problems import load_problems
from sgpo_core.judges import processbench
from tasks.models.folders import model_folder
from tests.helpers import REPOSITORY, shell_environment
from tests.hub_sources import GSM8K, MODEL, SOURCES, UNWANTED, Source, lines, load_questions, model, questions
from tests.loopback_hub import Hub, loopback_hub, point_to

RIGHT, STRANGER, WRONG = "hf_right", "hf_stranger", "hf_wrong"  # tokens; a stranger's is valid and opens nothing
ABSENT = "0" * 40

every_source = pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
CACHED = {name: source for name, source in SOURCES.items() if name != "responses"}  # which are streamed
cached_source = pytest.mark.parametrize("source", CACHED.values(), ids=CACHED)
model_and_problems = pytest.mark.parametrize("source", [MODEL, GSM8K], ids=["model", "problems"])


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub without repositories, and empty caches. The libraries read their environment when they are imported, so
    that what they read is set here; `test_the_environment` has it from the environment."""
    monkeypatch.setenv("SGPO_HOME", str(tmp_path))
    with loopback_hub() as server:
        server.tokens = {RIGHT: {source.name for source in SOURCES.values()}, STRANGER: set()}
        point_to(server, tmp_path, monkeypatch)
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", server.url)
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets-cache")
        monkeypatch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", False)  # it would ask another host
        huggingface_hub.HfFileSystem.clear_instance_cache()
        _http.close_session()
        yield server
    _http.close_session()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits before asking again fails."""

    def sleep(seconds: float) -> None:
        raise AssertionError(f"a wait of {seconds} s")

    for module in (_http, file_download):
        monkeypatch.setattr(module, "time", SimpleNamespace(sleep=sleep))


def add(hub: Hub, source: Source, commits: int = 1, **access: Any) -> list[str]:
    return hub.add(source.kind, source.name, *map(source.files, range(commits)), **access)


def go_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def refusal(source: Source, revision: str | None = None) -> str:
    """What the error says beside the setting and what to do without the hub."""
    with pytest.raises(ConfigError) as refused:
        source.load(revision)
    message = str(refused.value)
    instead = source.instead.format(home=os.environ["SGPO_HOME"])
    assert message.startswith(source.setting)
    assert instead in message
    assert "\n" not in message
    assert "hf_" not in message, "no token is told"
    return message.removeprefix(source.setting).partition("Without internet")[0]


@every_source
def test_the_newest_commit_comes(hub: Hub, source: Source) -> None:
    add(hub, source, commits=2)
    assert source.load(None) == source.content(1)


@every_source
def test_the_pinned_commit_comes(hub: Hub, source: Source) -> None:
    first, second = add(hub, source, commits=2)
    assert source.load(first) == source.content(0) != source.content(1)
    assert source.load(second) == source.content(1)
    assert source.load(first) == source.content(0), "from the cache, after another"


@every_source
@pytest.mark.parametrize("revision", [ABSENT, "v7"])
def test_an_unknown_revision(hub: Hub, source: Source, revision: str) -> None:
    [sha] = add(hub, source)
    assert f"it has no revision {revision}: those that it has are at {hub.url}" in refusal(source, revision)
    source.load(sha)
    assert f"it has no revision {revision}" in refusal(source, revision), "nor is it another one of the cache"


@every_source
@pytest.mark.parametrize("gated", [("revision", "tree", "file"), ("tree", "file"), ("file",)], ids="-".join)
def test_a_gated_repository(hub: Hub, source: Source, gated: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    [sha] = add(hub, source, gated=gated)
    page = f"{hub.url}/{'datasets/' if source.kind == 'datasets' else ''}{source.name}"
    assert f"accept the terms at {page}, and set HF_TOKEN to a token of that account" in refusal(source, sha)
    monkeypatch.setenv("HF_TOKEN", STRANGER)
    assert f"the account of HF_TOKEN has no access: accept the terms at {page}" in refusal(source, sha)
    monkeypatch.setenv("HF_TOKEN", RIGHT)
    assert source.load(sha) == source.content(0)


@every_source
def test_a_missing_or_private_repository(hub: Hub, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    word = "data set" if source.kind == "datasets" else "model"
    assert f"there is no {word} of this name" in refusal(source, ABSENT)
    [sha] = add(hub, source, private=True)
    assert "or it is private: then set HF_TOKEN" in refusal(source, sha)
    monkeypatch.setenv("HF_TOKEN", STRANGER)
    assert f"there is no {word} of this name, or HF_TOKEN may not read it" in refusal(source, sha)
    monkeypatch.setenv("HF_TOKEN", RIGHT)
    assert source.load(sha) == source.content(0)


@every_source
def test_a_wrong_token(hub: Hub, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    [sha] = add(hub, source)
    monkeypatch.setenv("HF_TOKEN", WRONG)
    assert "the hub does not accept HF_TOKEN: correct it, or unset it for what is public" in refusal(source, sha)
    monkeypatch.delenv("HF_TOKEN")
    Path(constants.HF_TOKEN_PATH).write_text(WRONG)
    assert "the hub does not accept the token of `hf auth login`" in refusal(source, sha)


@pytest.mark.parametrize("token", ["hf_\x00right", "hf_“right”"])
def test_a_token_that_is_none_is_not_told(
    hub: Hub, token: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The libraries' own message shows the first of them whole."""
    add(hub, MODEL)
    monkeypatch.setattr(client, "get_token", lambda: token)
    monkeypatch.setattr("huggingface_hub.utils._headers.get_token", lambda: token)
    assert "has characters that no token has: set it anew" in refusal(MODEL)
    assert "hf_" not in caplog.text


@cached_source
@pytest.mark.parametrize("pinned", [True, False])
def test_offline(hub: Hub, source: Source, pinned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    shas = add(hub, source, commits=2)
    revision = shas[0] if pinned else None
    with monkeypatch.context() as offline:
        go_offline(offline)
        assert "it is not in the cache, and HF_HUB_OFFLINE" in refusal(source, revision)
    assert hub.requests == []
    online = source.load(revision)
    hub.requests.clear()
    go_offline(monkeypatch)
    assert source.load(revision) == online
    assert "it is not in the cache" in refusal(source, shas[1] if pinned else ABSENT), "nor another commit of it"
    assert hub.requests == []


@pytest.mark.parametrize("source", [GSM8K, SOURCES["processbench"]], ids=["problems", "processbench"])
def test_only_data_sets_offline(hub: Hub, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    [sha] = add(hub, source)
    source.load(sha)
    hub.requests.clear()
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)  # HF_DATASETS_OFFLINE
    assert source.load(sha) == source.content(0)
    assert hub.requests == []


@cached_source
def test_each_commit_of_the_cache_stays_itself(
    hub: Hub, source: Source, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """`datasets` alone takes the one that it made last, whatever is asked for."""
    first, second = add(hub, source, commits=2)
    contents = {None: source.content(1), second: source.content(1), first: source.content(0)}
    assert {revision: source.load(revision) for revision in contents} == contents
    hub.broken = 503
    assert {revision: source.load(revision) for revision in contents} == contents
    assert f"{source.name} comes from the cache: the hub answers 503" in caplog.text
    caplog.clear()
    go_offline(monkeypatch)
    assert {revision: source.load(revision) for revision in contents} == contents
    assert "comes from the cache" not in caplog.text, "as was asked for"


@cached_source
def test_a_commit_that_is_gone_from_the_hub(hub: Hub, source: Source, caplog: pytest.LogCaptureFixture) -> None:
    [sha] = add(hub, source)
    source.load(sha)
    hub.add(source.kind, source.name, source.files(1))
    assert source.load(sha) == source.content(0)
    assert f"{source.name} comes from the cache: it has no revision {sha}" in caplog.text


def test_another_commit_of_the_cache_is_not_taken_for_it(hub: Hub) -> None:
    """`datasets` does so even where the hub answers, after any error that comes late."""
    first, second = add(hub, GSM8K, commits=2)
    GSM8K.load(first)
    hub.repositories["datasets", GSM8K.name].gated = ("tree",)
    assert f"only its revision {first} can be had" in refusal(GSM8K, second)
    assert GSM8K.load(first) == GSM8K.content(0)


@every_source
def test_a_hub_that_is_not_there(source: Source, hub: Hub, impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with loopback_hub() as other:
        pass
    monkeypatch.setattr(constants, "ENDPOINT", other.url)
    for revision in (ABSENT, None):
        assert f"{other.url} does not answer (ConnectError): look at HF_ENDPOINT and the proxy" in refusal(
            source, revision
        )


@cached_source
def test_a_hub_that_is_there_no_more(
    hub: Hub, source: Source, impatient: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    [sha] = add(hub, source)
    source.load(sha)
    with loopback_hub() as other:
        pass
    monkeypatch.setattr(constants, "ENDPOINT", other.url)
    assert source.load(sha) == source.content(0)
    assert f"{source.name} comes from the cache: {other.url} does not answer (ConnectError)" in caplog.text


@every_source
def test_a_hub_that_never_answers(hub: Hub, source: Source, impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.mute = True
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.1)
    assert f"{hub.url} does not answer (ReadTimeout)" in refusal(source, ABSENT)


@every_source
def test_a_hub_that_is_broken(hub: Hub, source: Source, impatient: None) -> None:
    hub.broken = 502
    assert "the hub answers 502 (it says no more)" in refusal(source, ABSENT)


@model_and_problems
def test_a_download_that_is_cut_in_half(hub: Hub, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 256)  # 10 MB; what comes after the last whole one is lost
    monkeypatch.setattr(file_download, "time", SimpleNamespace(sleep=lambda _: None))
    [sha] = add(hub, source)
    hub.cuts = [source.large]
    assert source.load(sha) == source.content(0)
    parts = [r.headers.get("Range") for r in hub.requests if r.path == source.large]
    half = len(source.files(0)[source.large]) // 2
    assert hub.cuts == []
    assert parts == [None, f"bytes={half - half % 256}-"]


@model_and_problems
def test_the_host_of_large_files_sees_no_token(hub: Hub, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", RIGHT)
    add(hub, source, private=True)
    source.load(None)
    seen = {request.path.startswith("/"): request.headers.get("Authorization") for request in hub.requests}
    assert seen == {True: f"Bearer {RIGHT}", False: None}


def test_what_is_not_wanted_is_not_downloaded(hub: Hub) -> None:
    add(hub, MODEL)
    folder = model_folder("model.path", "org/tiny")
    assert {file.name for file in folder.iterdir()} == {"config.json", "tokenizer.json", "model.safetensors"}
    assert [path for path in hub.asked() if path.endswith(tuple(UNWANTED))] == []


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_repository_that_holds_no_model(hub: Hub, name: str) -> None:
    hub.add("models", "org/tiny", {file: data for file, data in model(0).items() if file != name})
    assert f"there is no {name.replace('model', '*')} in it" in refusal(MODEL)


@pytest.mark.parametrize(
    "cached", [["config.json"], ["config.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors"]]
)
def test_a_part_of_a_model_is_no_model(hub: Hub, cached: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program may have downloaded single files."""
    parts = [f"model-0000{part}-of-00002.safetensors" for part in (1, 2)]
    index = json.dumps({"weight_map": {"a": parts[0], "b": parts[1]}}).encode()
    files = {"config.json": b"{}", "model.safetensors.index.json": index, **dict.fromkeys(parts, b"x")}
    hub.add("models", "org/tiny", files)
    for name in cached:
        huggingface_hub.hf_hub_download("org/tiny", name)
    with monkeypatch.context() as offline:
        go_offline(offline)
        assert "it is not in the cache" in refusal(MODEL)
    folder = model_folder("model.path", "org/tiny")
    assert {file.name for file in folder.iterdir()} == set(files)
    go_offline(monkeypatch)
    assert model_folder("model.path", "org/tiny") == folder


def test_a_revision_with_a_slash_is_one_of_the_hub(hub: Hub) -> None:
    add(hub, MODEL)
    assert "it has no revision refs/pr/1" in refusal(MODEL, "refs/pr/1")
    assert hub.asked() == ["/api/models/org/tiny/revision/refs/pr/1"]


def test_splits_and_configurations(hub: Hub) -> None:
    add(hub, GSM8K)
    tests = [row["question"] for row in lines("test")]
    assert load_questions(None, split="test") == tests
    socratic = load_problems(
        DataSettings(source="openai/gsm8k", subset="socratic", problem_column="question", reference_column="answer")
    )
    assert socratic["reference"][0].startswith("Why? ")
    for wrong, said in (
        ({"subset": "minor"}, "'minor' not found. Available: ['main', 'socratic']"),
        ({"split": "dev"}, "Unknown split"),
    ):
        with pytest.raises(ConfigError) as refused:
            load_questions(None, **wrong)
        assert said in str(refused.value)


def test_a_data_set_without_a_card_or_configurations(hub: Hub) -> None:
    add(hub, SOURCES["responses"])
    assert load_questions(None, source="org/lines", subset=None) == questions(0)


def test_all_of_processbench(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    [sha] = add(hub, SOURCES["processbench"])
    monkeypatch.setattr(processbench, "HUB_REVISION", sha)
    examples = processbench.load("Qwen/ProcessBench")
    assert [e.subset for e in examples] == [name for name in processbench.HUB_SUBSETS for _ in range(8)]
    assert sorted(e.label for e in examples[:8]) == [-1, -1, -1, 0, 1, 2, 3, 4]


SCRIPT = """
import json
from sgpo_core.config.data import DataSettings
from sgpo_core.data.problems import load_problems
from tasks.models.folders import model_folder

problems = load_problems(DataSettings(source="openai/gsm8k", subset="main", problem_column="question"))
weights = model_folder("model.path", "org/tiny") / "model.safetensors"
print(json.dumps([problems["prompt"][:], weights.read_bytes().hex()]))
"""


def test_the_environment(tmp_path: Path) -> None:
    """HF_ENDPOINT, HF_HOME, HF_TOKEN, HF_HUB_OFFLINE as a user sets them, in processes of their own."""
    with loopback_hub() as hub:
        hub.tokens = {RIGHT: {"org/tiny", "openai/gsm8k"}}
        add(hub, MODEL, gated=("tree", "file"))
        add(hub, GSM8K, gated=("tree", "file"))
        clean = {k: v for k, v in shell_environment(tmp_path).items() if not k.startswith(("HF_", "HUGGING", "TRANSF"))}
        clean |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1,localhost"}
        for more in ({"HF_TOKEN": RIGHT}, {"HF_HUB_OFFLINE": "1"}):
            hub.requests.clear()
            command, environment = [sys.executable, "-c", SCRIPT], {**clean, "HF_UPDATE_DOWNLOAD_COUNTS": "0", **more}
            done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout) == [questions(0), model(0)["model.safetensors"].hex()]
            assert RIGHT not in done.stdout + done.stderr
        assert hub.requests == []
