"""The judges of a run, real ones: in vLLM's own actor, behind a real server on loopback, and in a whole run."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from sgpo_core.config.judge import EndpointSettings, JudgeEngineSettings, JudgeSettings
from sgpo_core.judges.processbench import generated
from sgpo_core.judges.scores import JudgeScores, score
from sgpo_core.storage.atomic import read_json
from sgpo_core.types import Judgment
from tasks.judges.kinds import open_judge
from tests.helpers import SMALL, columns, start_from

EXAMPLES = generated(60, seed=7)
MARKER = {"prompt": "marker-v1", "reference": False, "cache": False}


@pytest.fixture(scope="module")
def server(trained_judge: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The trained judge behind vLLM's OpenAI-compatible server."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", trained_judge),
        *("--served-model-name", "judge", "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"),
        *("--max-model-len", "256", "--enforce-eager", "--max-num-seqs", "16", "--max-num-batched-tokens", "4096"),
    ]
    variables = {"OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            env={**os.environ, **variables, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                break
            except (urllib.error.URLError, OSError):
                assert process.poll() is None, log.read_text()[-3000:]
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(60)


def measured(settings: JudgeSettings) -> tuple[list[Judgment], JudgeScores]:
    with open_judge(settings) as judge:
        judgments = judge([example.item() for example in EXAMPLES])
    labels, subsets = [e.label for e in EXAMPLES], [e.subset for e in EXAMPLES]
    return judgments, score(judgments, labels, subsets).overall


def in_actor(name: str, folder: str) -> JudgeSettings:
    return JudgeSettings.model_validate(
        {"name": name, "model": folder, "engine": JudgeEngineSettings(max_length=256), **MARKER}
    )


def test_the_same_model_gives_the_same_verdicts_wherever_it_runs(trained_judge: str, server: str) -> None:
    trained, scores = measured(in_actor("trained", trained_judge))
    llm, _ = measured(in_actor("llm", trained_judge))
    behind = EndpointSettings(url=server, concurrency=8)
    endpoint, theirs = measured(
        JudgeSettings.model_validate({"name": "endpoint", "model": "judge", "endpoint": behind, **MARKER})
    )
    assert scores.abstained_frac == theirs.abstained_frac == 0
    assert scores.exact > 0 and scores.f1 > 0, "a judge that knows nothing agrees with itself, too"
    assert [j.verdict for j in llm] == [j.verdict for j in trained]
    assert [j.verdict for j in endpoint] == [j.verdict for j in trained]
    assert [j.prompt_tokens for j in endpoint] == [j.prompt_tokens for j in trained]


def test_vllm_takes_what_a_judge_that_thinks_is_asked_with(
    trained_judge: str, server: str, caplog: pytest.LogCaptureFixture
) -> None:
    """This one ignores it, since its template has no such switch."""
    settings = {"name": "endpoint", "model": "judge", "endpoint": {"url": server, "reasoning_effort": "low"}, **MARKER}
    for thinks in (False, True):
        thinking, _ = measured(JudgeSettings.model_validate({**settings, "thinks": thinks, "thinking_tokens": 16}))
        plain, _ = measured(in_actor("trained", trained_judge))
        assert [j.verdict for j in thinking] == [j.verdict for j in plain]
    assert "does not accept" not in caplog.text


def test_a_run_with_a_trained_judge_keeps_its_verdicts_and_watches_it(policy: str, trained_judge: str) -> None:
    from flows.online import online

    settings = ["judge=trained", f"judge.model={trained_judge}", "judge.drift_sample=1", "iterations=2"]
    result = online("tiny", [*SMALL, *start_from(policy), *settings, "experiment=judges-test"])
    table = columns(Path(result["run_dir"]) / "iterations/000001/rollouts.parquet")
    judged = [i for i, status in enumerate(table["verdict_status"]) if status]
    read = [i for i in judged if table["verdict_prompt_tokens"][i]]  # not the empty ones
    asked = [i for i in read if not table["verdict_cached"][i]]  # not the copies of these
    assert asked
    again = online("tiny", [*SMALL, *start_from(policy), *settings, "experiment=judges-test-again"])
    first, second = (
        read_json(Path(r["run_dir"]) / "iterations/000001/metrics.json")["metrics"] for r in (result, again)
    )
    spent = sum(table[f"verdict_{kind}_tokens"][i] for i in read for kind in ("prompt", "completion"))
    assert first["judge/tokens"] == spent > 20 * len(read)
    assert first["judge/wait_s"] >= 0 and 0 <= first["judge/drift_agreement"] <= 1
    assert first["judge/cached_frac"] < second["judge/cached_frac"]
    later = columns(Path(again["run_dir"]) / "iterations/000001/rollouts.parquet")
    assert later["first_error_step"] == table["first_error_step"] and all(later["verdict_cached"][i] for i in asked)
    for name in ("reward/rts_mean", "policy/loss", "judge/calls", "judge/tokens"):
        assert first.get(name) == second.get(name)
