"""An engine that is spread over several processes, as it is over several GPUs: here over two on the CPU."""

from __future__ import annotations

import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import torch
from safetensors.torch import load_file, save_file

from sgpo_core.chains import problems as chains
from sgpo_core.config.data import ModelSettings
from sgpo_core.config.run import load_run
from sgpo_core.config.training import ClusterSettings
from tasks.data import encode_prompts, load_tokenizer, stop_ids
from tasks.engines import cluster, placement
from tasks.engines.actors import local_folder, remote_actor
from tasks.engines.cluster import Engines, kept_actors, start_trainers
from tasks.engines.faults import EngineLost, last_line
from tasks.engines.generation import generate_groups
from tasks.engines.guard import sync_folder
from tasks.engines.placement import Seat
from tasks.engines.sync import sync_engines
from tasks.workers.meeting import Meeting
from tasks.workers.rollout_worker import Request, RolloutWorker, Sampling, engine_arguments
from tasks.workers.vllm_process import cause_in, causes_named, processes, vllm_environment
from tasks.workers.weight_transfer import BroadcastTransfer

CONFIG = load_run("tiny")


class TwoProcesses(RolloutWorker):
    """As with cluster.rollout_gpus=2, without the GPUs."""

    def __init__(self, policy: str, model: ModelSettings, settings: ClusterSettings) -> None:
        from vllm import LLM

        self.version, self.max_num_seqs = -1, settings.max_num_seqs
        with causes_named():
            self.llm = LLM(**engine_arguments(policy, model, settings) | processes(2))

    def processes(self) -> list[int]:
        """This one, and the engine's."""
        here = psutil.Process()
        return [process.pid for process in (here, *here.children(recursive=True))]


@pytest.fixture(scope="module")
def spread(policy: str) -> Iterator[Engines]:
    def start() -> tuple[Any, ...]:
        # As on GPUs, where vLLM would have Ray start its processes.
        group = ray.util.placement_group([{"CPU": 1}])
        assert group.wait(60)
        placement._groups.append(group)
        actor = remote_actor(TwoProcesses, Seat(0, group), vllm_environment(1, local_folder()))
        return actor.remote(policy, CONFIG.model, CONFIG.cluster), *start_trainers(CONFIG.cluster)

    with cluster.keep_engines():
        rollout, trainer = kept_actors("two processes", start)
        engines = Engines((rollout,), (trainer,), sync_folder(CONFIG.cluster.sync_dir), deadline_s=120)
        engines.on_all_ranks("setup", policy, CONFIG.model, CONFIG.train, CONFIG.deepspeed, False)
        yield engines
        for actor in (rollout, trainer):
            ray.kill(actor)
        placement.release()


@pytest.fixture(scope="module")
def prompt(policy: str) -> list[int]:
    return encode_prompts(policy, chains.make_problems(1, seed=9), ModelSettings(max_length=128), 64)[0]


def by_broadcast(engines: Engines) -> Engines:
    meeting = engines.sync_dir / f"broadcast-{uuid.uuid4().hex}"
    return replace(engines, broadcast=BroadcastTransfer(Meeting(3, file=str(meeting)), 60.0))


def test_each_process_proves_its_part(spread: Engines, prompt: list[int]) -> None:
    for version, engines in enumerate((spread, by_broadcast(spread))):
        assert sync_engines(engines, version, prompt, 1e-4).mean < 1e-5


Weights = Iterable[tuple[str, torch.Tensor]]


def halved(weights: Weights) -> Weights:
    for name, tensor in weights:
        yield name, tensor * 0.5 if name == "model.norm.weight" else tensor


def failing(weights: Weights) -> Weights:
    for name, tensor in weights:
        if "layers.1" in name:
            raise MemoryError("no room for this layer")
        yield name, tensor


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (halved, r"1 of \d+ parameters different in process 1 \(model\.norm\.weight"),
        (failing, "no room for this layer"),
    ],
)
@pytest.mark.parametrize("way", [lambda engines: engines, by_broadcast])
def test_what_goes_wrong_in_one_process_stops_the_run(
    spread: Engines,
    prompt: list[int],
    tamper: Callable[[Weights], Weights],
    said: str,
    way: Callable[[Engines], Engines],
) -> None:
    def broken(process: Any) -> None:
        load = process.model_runner.reload_weights
        process.load = load
        if process.rank == 1:
            process.model_runner.reload_weights = lambda weights_iterator: load(
                weights_iterator=tamper(weights_iterator)
            )

    def mended(process: Any) -> None:
        process.model_runner.reload_weights = process.load

    [engine] = spread.rollouts
    ray.get(engine.__ray_call__.remote(lambda worker: worker.llm.collective_rpc(broken)))
    began = time.monotonic()
    with pytest.raises(RuntimeError, match=said):
        sync_engines(way(spread), 3, prompt, 1e-4)
    assert time.monotonic() - began < 40, "nobody waits for the one that failed"
    ray.get(engine.__ray_call__.remote(lambda worker: worker.llm.collective_rpc(mended)))
    sync_engines(spread, 4, prompt, 1e-4)


def test_it_listens_on_loopback_alone(spread: Engines) -> None:
    processes = ray.get(spread.rollouts[0].processes.remote())
    listening = {
        ip_address(connection.laddr.ip)
        for pid in processes
        for connection in psutil.Process(pid).net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }
    elsewhere = [str(ip) for ip in listening if not (getattr(ip, "ipv4_mapped", None) or ip).is_loopback]
    assert len(processes) >= 3 and listening and elsewhere == []


def test_its_sockets_are_where_the_guard_removes_them(spread: Engines) -> None:
    folder = local_folder()
    assert folder and any(path.is_socket() for path in folder.iterdir())


def test_responses_come_and_an_engine_that_lost_a_process_is_lost(
    spread: Engines, policy: str, prompt: list[int]
) -> None:
    how, tokenizer = Sampling(1.0, 64, stop_ids(policy)), load_tokenizer(policy)
    groups = [[Request(prompt, seed) for seed in range(4)]] * 2
    first, second = generate_groups(spread, tokenizer, groups, how)
    assert len(first) == 4 and [r.text for r in first] == [r.text for r in second]

    pids = spread.rollouts[0].__ray_call__.remote(lambda worker: worker.llm.collective_rpc(lambda _: os.getpid()))
    psutil.Process(ray.get(pids)[1]).kill()
    for ask in (
        lambda: generate_groups(spread, tokenizer, groups, how),
        lambda: sync_engines(spread, 5, prompt, 1e-4),  # it is known by now
    ):
        with pytest.raises(EngineLost, match=r"rollout engine 0 died \(one of its processes has ended"):
            ask()


def test_the_cause_of_a_start_that_failed_is_said(spread: Engines, policy: str, tmp_path: Path) -> None:
    """vLLM itself says "See stack trace for root cause"."""
    damaged = tmp_path / "policy"
    shutil.copytree(policy, damaged)
    weights = load_file(damaged / "model.safetensors")
    name = "model.layers.1.mlp.down_proj.weight"
    weights[name] = weights[name][:, :100].contiguous()  # of 256, 128 for each process
    save_file(weights, damaged / "model.safetensors", {"format": "pt"})
    actor = remote_actor(TwoProcesses, Seat(), vllm_environment(1, local_folder()))
    with pytest.raises(ray.exceptions.RayActorError) as failed:
        ray.get(actor.remote(str(damaged), CONFIG.model, CONFIG.cluster).processes.remote())
    assert re.search("IndexError: start out of range|exceeds dimension size", last_line(failed.value))


LOG = """\
(Worker_TP1 pid=2) ERROR 11-28 04:50:11 [multiproc_executor.py:953] WorkerProc failed to start.
(Worker_TP0 pid=1) ERROR 11-28 04:50:11 [multiproc_executor.py:953] WorkerProc failed to start.
(Worker_TP1 pid=2) ERROR 11-28 04:50:11 [multiproc_executor.py:953] Traceback (most recent call last):
(Worker_TP0 pid=1) ERROR 11-28 04:50:11 [multiproc_executor.py:953] Traceback (most recent call last):
(Worker_TP1 pid=2) ERROR 11-28 04:50:11 [multiproc_executor.py:953]     self.load_model()
(Worker_TP1 pid=2) ERROR 11-28 04:50:11 [multiproc_executor.py:953] torch.OutOfMemoryError: CUDA out of memory.
(Worker_TP0 pid=1) ERROR 11-28 04:50:11 [multiproc_executor.py:953] RuntimeError: Connection closed by peer
"""


def test_of_several_failures_the_first_is_the_cause() -> None:
    assert cause_in(LOG.splitlines()) == "torch.OutOfMemoryError: CUDA out of memory."
    assert cause_in(["(Worker_TP0 pid=1) ERROR 11-28 [x.py:1] ValueError: of a call"]) == cause_in([]) == ""
