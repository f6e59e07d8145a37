"""Where engines start, and what is said of them."""

from __future__ import annotations

import json
import re
import secrets
import socket
import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from sgpo_core.config.base import ConfigError
from sgpo_core.config.data import ModelSettings
from sgpo_core.config.training import ClusterSettings
from tasks.engines.actors import _check_head, _let_in
from tasks.engines.cluster import kv_advice
from tasks.engines.placement import fits
from tests.helpers import REPOSITORY, shell_environment


def test_a_kv_cache_that_is_too_small_is_said() -> None:
    # 128 MiB hold 9 sequences; 64 need 128 * 64 / 9 = 910.2 MiB.
    model, cluster = ModelSettings(max_length=640), ClusterSettings(kv_cache_mib=128, max_num_seqs=64)
    assert kv_advice(64.0, model, cluster) == ""
    advice = kv_advice(9.0, model, cluster)
    assert "holds 9 responses of model.max_length=640" in advice and "cluster.kv_cache_mib=911 holds them all" in advice
    on_gpu = ClusterSettings(rollout_gpus=1, max_num_seqs=64)
    assert "cluster.gpu_memory_utilization" in kv_advice(9.0, model, on_gpu)


def test_a_head_that_is_not_there_is_named_at_once() -> None:
    """Ray itself tries for minutes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        there = f"127.0.0.1:{listening.getsockname()[1]}"
        _check_head(there)
    for address in ("", "auto", "local"):
        _check_head(address)
    for gone in (there, f"ray://{there}", "no-such-host.invalid:6379"):
        with pytest.raises(ConfigError, match=f"RAY_ADDRESS={gone}: no head of a Ray cluster answers there"):
            _check_head(gone)


def test_a_head_that_wants_another_token_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    with pytest.raises(ConfigError, match=r"RAY_ADDRESS=head:6379: .*RAY_AUTH_TOKEN"), _let_in():
        raise ConnectionError("Failed to connect to Ray cluster at head:6379")


def test_bundles_fit_where_each_is_on_one_node() -> None:
    assert fits([2, 1, 1, 1, 1, 2], [8]) and fits([], [])
    assert fits([1, 1, 2], [2, 2]), "the pair first, or none is left together"
    assert fits([2, 1], [2, 1]) and fits([4, 2, 2], [4, 4]), "each where it leaves the least"
    assert not fits([2], [1, 1]) and not fits([2, 2], [3, 1]) and not fits([1], [])


# In a Ray of its own, whose two nodes believe that they have two GPUs each: where engines and ranks are put, and what
# is said where they can't be.
PLACED = """
import json, os, subprocess, sys
from contextlib import ExitStack
from pathlib import Path
from threading import Timer
import ray
from sgpo_core.chains.policy import save_random_policy
from sgpo_core.config.base import ConfigError
from sgpo_core.config.judge import JudgeEngineSettings
from sgpo_core.config.run import load_run
from sgpo_core.config.training import ClusterSettings
from sgpo_core.config.warm_start import load_warm_start
from tasks.engines import cluster, nodes, placement
from tasks.engines.actors import remote_actor, start_ray
from tasks.engines.cluster import engines_for
from tasks.engines.faults import EngineLost, answers
from tasks.engines.guard import start_guard
from tasks.engines.nodes import check_model, check_nodes, nodes_without, starting
from tasks.engines.placement import Seat, check_seats, judge_seats, leave_seats, release, reserved
from tasks.engines.sync import sync_engines
from tests.faults.ray_nodes import ray_nodes

class Where:
    def gpus(self):
        return [ray.get_runtime_context().get_node_id(), *ray.get_gpu_ids()]

def where(seats):
    actors = [remote_actor(Where, seat, {}).remote() for seat in seats]
    found = ray.get([actor.gpus.remote() for actor in actors])
    for actor in actors:
        ray.kill(actor)
    return found

def placed(judge=None, **settings):
    places = reserved(ClusterSettings(**settings), trainers=True, judge=judge)
    found = where((*places.rollouts, *places.ranks, *(judge_seats(judge) if judge else ())))
    release()
    return found

def refused(what, within_s=3.0):
    usual, placement._FREE_WITHIN_S = placement._FREE_WITHIN_S, within_s
    try:
        what()
    except (ConfigError, EngineLost) as error:
        return str(error)
    finally:
        placement._FREE_WITHIN_S = usual

start_guard()  # nothing of it stays, however this ends
held = ExitStack()
ray_cluster, [other] = held.enter_context(ray_nodes(2, num_gpus=2))
os.environ["RAY_ADDRESS"] = ray_cluster.address
start_ray()
pair = {"rollout_actors": 1, "rollout_gpus": 2}
found = {
    "colocated": placed(rollout_actors=2, rollout_gpus=1, trainer_ranks=2, trainer_gpus=1, colocated=True),
    "apart": placed(**pair, trainer_ranks=2, trainer_gpus=1),
    "with a judge": placed(JudgeEngineSettings(gpus=2), rollout_actors=1, rollout_gpus=1, trainer_gpus=1),
    "on the CPU": placed(rollout_actors=2, trainer_ranks=2),
    "too large": refused(lambda: placed(rollout_actors=1, rollout_gpus=3, trainer_ranks=1, trainer_gpus=1)),
    "judge too large": refused(lambda: placed(JudgeEngineSettings(gpus=2), **pair, trainer_gpus=1)),
}
judge = JudgeEngineSettings(actors=2)
reserved(ClusterSettings(), trainers=True, judge=judge)
seats = judge_seats(judge)
leave_seats(judge, seats)  # its engines did not start
found["for the next judge"] = judge_seats(judge) == seats
release()

# Two runs: the other one is a process of its own, which has an engine of two GPUs.
RUN = '''
import sys
from sgpo_core.config.training import ClusterSettings
from tasks.engines.actors import start_ray
from tasks.engines.placement import reserved
start_ray()
reserved(ClusterSettings(rollout_actors=1, rollout_gpus=2), trainers=False)
print(flush=True)
sys.stdin.read()
'''
run = subprocess.Popen([sys.executable, "-c", RUN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
run.stdout.readline()
found["other run"] = run.pid
found["two runs"] = refused(lambda: placed(**pair, trainer_ranks=2, trainer_gpus=1))
Timer(4.0, run.stdin.close).start()
found["after the other run"] = len(placed(**pair, trainer_ranks=2, trainer_gpus=1))

[taken] = [remote_actor(Where, Seat(1), {}).remote()]
ray.get(taken.gpus.remote())
found["not free"] = refused(lambda: judge_seats(JudgeEngineSettings(actors=2, gpus=2)))

check_nodes(Path(os.environ["SGPO_HOME"]))
found["no model"] = refused(lambda: check_nodes(Path("/nonexistent/model")))
found["no judge"] = refused(lambda: check_model(Path("/nonexistent/judge")))
usual, here = nodes._versions, os.getpid()
nodes._versions = lambda: usual() | ({"vllm": "0.0.1"} if os.getpid() != here else {})
found["versions"] = refused(lambda: check_nodes(Path(os.environ["SGPO_HOME"])))
nodes._versions = usual
found["left"] = os.listdir(os.environ["SGPO_HOME"])

private = os.open("/dev/null", os.O_RDONLY)
os.dup2(private, 987)  # a path that other processes do not have
found["blind"] = nodes_without(Path("/proc/self/fd/987"))

policy, config = os.environ["SGPO_HOME"] + "/policy", load_run("tiny")
save_random_policy(load_warm_start("tiny", ["hidden_size=64", "heads=2"]), Path(policy))
with engines_for(policy, config.model, config.cluster) as engines:
    engines.on_all_ranks("setup", policy, config.model, config.train, config.deepspeed, False)
    actors = (*engines.rollouts, *engines.trainers)
    found["engines on"] = len({ray.get(actor.__ray_call__.remote(cluster._node)) for actor in actors})
    found["by broadcast"] = engines.broadcast is not None
    found["differences"] = [sync_engines(engines, version, range(3, 19), 1e-4).mean for version in (0, 1)]

# A node leaves: after its GPUs were reserved, and while they are waited for.
start_ray()
def start_on_both():
    with starting("the engines"):
        places = reserved(ClusterSettings(rollout_actors=2, rollout_gpus=2), trainers=False).rollouts
        ray_cluster.remove_node(other, allow_graceful=False)
        actors = [remote_actor(Where, seat, {}).remote() for seat in places]
        answers({actor.gpus.remote(): "engine" for actor in actors}, 600, check_seats)
found["leaves"] = refused(start_on_both, 60.0)
release()
other = ray_cluster.add_node(num_gpus=2, num_cpus=1, node_ip_address="127.0.0.4")
reserved(ClusterSettings(rollout_actors=1, rollout_gpus=1), trainers=False)
Timer(1.0, lambda: ray_cluster.remove_node(other, allow_graceful=False)).start()
found["leaves meanwhile"] = refused(lambda: placed(rollout_actors=2, rollout_gpus=2), 60.0)

ray.shutdown()
ray._private.utils.compute_version_info = lambda: (ray.__version__, "3.11.0")
found["other Python"] = refused(start_ray)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def placed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", PLACED],
        cwd=REPOSITORY,
        env=shell_environment(
            tmp_path_factory.mktemp("home"),
            RAY_AUTH_MODE="token",
            RAY_AUTH_TOKEN=secrets.token_hex(32),
            RAY_health_check_period_ms="500",
        ),
        capture_output=True,
        text=True,
        timeout=480,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_an_engine_and_its_rank_share_a_gpu(placed: dict[str, Any]) -> None:
    engine_0, engine_1, rank_0, rank_1 = placed["colocated"]
    assert engine_0 == rank_0 and engine_1 == rank_1 and engine_0 != engine_1


def test_the_gpus_of_an_engine_are_on_one_node(placed: dict[str, Any]) -> None:
    engine, *ranks = placed["apart"]
    assert sorted(engine[1:]) == [0, 1] and len({gpu for _, gpu in ranks}) == 2
    assert {node for node, _ in ranks}.isdisjoint({engine[0]})


def test_a_judge_has_its_gpus_before_any_engine_starts(placed: dict[str, Any]) -> None:
    engine, rank, judge = placed["with a judge"]
    assert engine[0] == rank[0] != judge[0] and sorted(judge[1:]) == [0, 1]
    both = r"1 rollout engines x 2 GPUs \(.*\) and 1 trainer ranks x 1 GPUs \(.*\) and 1 judge engines x 2 GPUs \("
    assert re.search(f"no room for {both}", placed["judge too large"])
    assert placed["for the next judge"] is True


def test_without_gpus_engines_are_spread_over_nodes(placed: dict[str, Any]) -> None:
    assert len({node for [node] in placed["on the CPU"]}) == 2


def test_what_does_not_fit_is_said_by_node(placed: dict[str, Any]) -> None:
    node = r"\S+ \(\w{6}\) has"
    assert re.search(rf"no room for 1 rollout engines x 3 .*: {node} \d of 2 .*, {node} \d of 2", placed["too large"])
    assert re.search(f"2 judge engines x 2 GPUs .* were not free within 3 s: {node} [12] of 2 .*, ", placed["not free"])


def test_of_two_runs_the_second_one_says_who_is_there_and_waits(placed: dict[str, Any]) -> None:
    first = rf"has 0 of 2 GPUs free \(process {placed['other run']} on \S+ has 2\)"
    assert re.search(f"were not free within 3 s: .*{first}", placed["two runs"])
    assert placed["after the other run"] == 3


def test_a_node_that_leaves_while_engines_start_is_named(placed: dict[str, Any]) -> None:
    assert re.fullmatch(r"127\.0\.0\.3 \(\w{6}\) left the cluster while engines started", placed["leaves"])
    assert re.search(r"no room for 2 rollout engines x 2 GPUs .*: 127\.0\.0\.2 [^,]*$", placed["leaves meanwhile"])


def test_a_process_with_another_python_is_told(placed: dict[str, Any]) -> None:
    assert re.search(
        r"same versions of Ray and of Python: .*started with: .* Python: 3\.11\.0$", placed["other Python"]
    )


def test_engines_on_two_nodes_get_their_weights_by_broadcast(placed: dict[str, Any]) -> None:
    assert placed["engines on"] == 2 and placed["by broadcast"] is True
    assert len(placed["differences"]) == 2 and max(placed["differences"]) < 1e-5


def test_nodes_that_do_not_share_a_folder_are_named(placed: dict[str, Any]) -> None:
    assert len(placed["blind"]) == 2 and placed["left"] == []
    for model in ("model", "judge"):
        said = rf"the model /nonexistent/{model} is not on \S+ \(\w{{6}}\), \S+ \(\w{{6}}\): "
        assert re.search(said, placed[f"no {model}"])


def test_nodes_with_other_versions_are_named(placed: dict[str, Any]) -> None:
    assert re.search(r"other versions: vllm 0\.0\.1 on \S+ \(\w{6}\), \S+ here; vllm .* make setup", placed["versions"])


def test_what_shares_gpus_comes_in_pairs() -> None:
    pair = {"rollout_gpus": 1, "trainer_gpus": 1, "trainer_ranks": 2, "colocated": True}
    assert ClusterSettings(rollout_actors=2, **pair).gpus == 2
    with pytest.raises(ValidationError, match="NCCL takes a GPU once"):
        ClusterSettings(rollout_actors=2, **pair, sync_by="broadcast")
    with pytest.raises(ValidationError, match="both on GPUs or both on the CPU"):
        ClusterSettings(rollout_gpus=1, sync_by="broadcast")
    for wrong in ({"rollout_actors": 1}, {"rollout_actors": 2, "rollout_gpus": 2}, {"trainer_gpus": 0}):
        with pytest.raises(ValidationError, match="as many engines as ranks"):
            ClusterSettings(**{"rollout_actors": 2, **pair, **wrong})
