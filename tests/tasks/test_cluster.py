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
import json, os
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from sgpo_core.chains.policy import save_random_policy
from sgpo_core.config.base import ConfigError
from sgpo_core.config.run import load_run
from sgpo_core.config.training import ClusterSettings
from sgpo_core.config.warm_start import load_warm_start
from tasks.engines import cluster, placement
from tasks.engines.actors import remote_actor
from tasks.engines.cluster import engines_for
from tasks.engines.guard import start_guard
from tasks.engines.placement import Seat, check_model, check_nodes, nodes_without, release, reserved, seats
from tasks.engines.sync import sync_engines

class Where:
    def gpus(self):
        return [ray.get_runtime_context().get_node_id(), *ray.get_gpu_ids()]

def placed(**settings):
    places = reserved(ClusterSettings(**settings), trainers=True)
    actors = [remote_actor(Where, seat, {}).remote() for seat in (*places.rollouts, *places.ranks)]
    found = ray.get([actor.gpus.remote() for actor in actors])
    for actor in actors:
        ray.kill(actor)
    release()
    return found

def refused(what):
    usual, placement._FREE_WITHIN_S = placement._FREE_WITHIN_S, 3.0
    try:
        what()
    except ConfigError as error:
        return str(error)
    finally:
        placement._FREE_WITHIN_S = usual

start_guard()  # nothing of it stays, however this ends
node = {"num_gpus": 2, "num_cpus": 1, "node_ip_address": "127.0.0.2"}  # Ray takes 127.0.0.1 for another address
nodes = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
nodes.add_node(**{**node, "node_ip_address": "127.0.0.3"})
ray.init(address=nodes.address, log_to_driver=False, configure_logging=False)
found = {
    "colocated": placed(rollout_actors=2, rollout_gpus=1, trainer_ranks=2, trainer_gpus=1, colocated=True),
    "apart": placed(rollout_actors=1, rollout_gpus=2, trainer_ranks=2, trainer_gpus=1),
    "on the CPU": placed(rollout_actors=2, trainer_ranks=2),
    "too large": refused(lambda: placed(rollout_actors=1, rollout_gpus=3, trainer_ranks=1, trainer_gpus=1)),
}
reserved(ClusterSettings(rollout_actors=2, rollout_gpus=1, trainer_ranks=1), trainers=False)
[other] = [remote_actor(Where, Seat(1), {}).remote()]
ray.get(other.gpus.remote())
found["not free"] = refused(lambda: placed(rollout_actors=1, rollout_gpus=2, trainer_ranks=1, trainer_gpus=0))
found["judge"] = refused(lambda: seats([2], "1 judge engines x 2 GPUs"))
release()
found["given back"] = len(seats([2], "1 judge engines x 2 GPUs"))
release()
check_nodes(Path(os.environ["SGPO_HOME"]))
found["no model"] = refused(lambda: check_nodes(Path("/nonexistent/model")))
found["no judge"] = refused(lambda: check_model(Path("/nonexistent/judge")))
usual, here = placement._versions, os.getpid()
placement._versions = lambda: usual() | ({"vllm": "0.0.1"} if os.getpid() != here else {})
found["versions"] = refused(lambda: check_nodes(Path(os.environ["SGPO_HOME"])))
placement._versions = usual
found["left"] = os.listdir(os.environ["SGPO_HOME"])

private = os.open("/dev/null", os.O_RDONLY)
os.dup2(private, 987)  # a path that other processes do not have
found["blind"] = nodes_without(Path("/proc/self/fd/987"))

policy, config = os.environ["SGPO_HOME"] + "/policy", load_run("tiny")
save_random_policy(load_warm_start("tiny", ["hidden_size=64", "heads=2"]), Path(policy))
os.environ["RAY_ADDRESS"] = nodes.address
with engines_for(policy, config.model, config.cluster) as engines:
    engines.on_all_ranks("setup", policy, config.model, config.train, config.deepspeed, False)
    actors = (*engines.rollouts, *engines.trainers)
    found["engines on"] = len({ray.get(actor.__ray_call__.remote(cluster._node)) for actor in actors})
    found["by broadcast"] = engines.broadcast is not None
    found["differences"] = [sync_engines(engines, version, range(3, 19), 1e-4).mean for version in (0, 1)]

print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def placed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", PLACED],
        cwd=REPOSITORY,
        env=shell_environment(
            tmp_path_factory.mktemp("home"), RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32)
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


def test_without_gpus_engines_are_spread_over_nodes(placed: dict[str, Any]) -> None:
    assert len({node for [node] in placed["on the CPU"]}) == 2


def test_what_does_not_fit_is_said_by_node(placed: dict[str, Any]) -> None:
    node = r"\S+ \(\w{6}\) has"
    assert re.search(rf"no room for 1 rollout engines x 3 .*: {node} \d of 2 .*, {node} \d of 2", placed["too large"])
    # Two engines have a GPU each of one node, somebody else has one of the other.
    few = rf"{node} [01] of 2 .*, {node} [01] of 2"
    assert re.search(f"1 rollout engines x 2 GPUs .* were not free within 3 s: {few}", placed["not free"])
    assert re.search(f"1 judge engines x 2 GPUs were not free within 3 s: {few}", placed["judge"])
    assert placed["given back"] == 1


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
