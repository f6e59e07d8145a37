"""Weight syncs that go wrong, of any model: engines that load nothing, a part, or layers in another order have to be
found out, each before a response is sampled.

    python -m tests.faults.syncs smol model=smollm2-135m-q4_1
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
import torch

from sgpo_core.config.run import load_run
from tasks.engines.cluster import Engines, engines_for
from tasks.engines.sync import sync_engines
from tasks.models.folders import model_folder
from tasks.services.environment import prepare_process

Tensors = dict[str, torch.Tensor]
Tamper = Callable[[Tensors], Tensors]


def left_out(tensors: Tensors) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if "layers.1.mlp.down_proj" not in name}


def part_of_a_fused_one_left_out(tensors: Tensors) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if "layers.0.self_attn.k_proj.weight" not in name}


def layers_swapped(tensors: Tensors) -> Tensors:
    other = {"0": "1", "1": "0"}
    return {re.sub(r"layers\.([01])\.", lambda m: f"layers.{other[m[1]]}.", name): tensors[name] for name in tensors}


def norm_of_before(tensors: Tensors) -> Tensors:
    return {name: tensor * 0.5 if name == "model.norm.weight" else tensor for name, tensor in tensors.items()}


def embedding_moved(tensors: Tensors) -> Tensors:
    return {name: tensor + 1e-6 if "embed_tokens" in name else tensor for name, tensor in tensors.items()}


@contextmanager
def tampered(engine: Any, tamper: Tamper) -> Iterator[None]:
    """What arrives at the engine is whole, and what it makes of it is not: `tamper` is between the two."""

    def broken(worker: Any) -> None:
        from tasks.workers import weight_reload

        worker.original = original = weight_reload.with_tied_head
        weight_reload.with_tied_head = lambda sent, model: original(iter(tamper(dict(sent)).items()), model)

    def mended(worker: Any) -> None:
        from tasks.workers import weight_reload

        weight_reload.with_tied_head = worker.original

    with _changed(engine, broken, mended):
        yield


@contextmanager
def nothing_loaded(engine: Any) -> Iterator[None]:
    """The engine takes the weights, and loads none."""

    def broken(worker: Any) -> None:
        runner = worker.llm.collective_rpc(lambda process: process.model_runner)[0]
        runner.reload_weights = lambda **_: None

    def mended(worker: Any) -> None:
        runner = worker.llm.collective_rpc(lambda process: process.model_runner)[0]
        del runner.reload_weights

    with _changed(engine, broken, mended):
        yield


@contextmanager
def _changed(engine: Any, broken: Callable[[Any], None], mended: Callable[[Any], None]) -> Iterator[None]:
    ray.get(engine.__ray_call__.remote(broken))
    try:
        yield
    finally:
        ray.get(engine.__ray_call__.remote(mended))


def found_out(engines: Engines, probe: list[int], tolerance: float) -> Iterator[tuple[str, str]]:
    """What was done to a sync, and what it says then ("" where it notices nothing). Real syncs are before and after."""
    engine = engines.rollouts[-1]
    harms = {tamper.__name__: tampered(engine, tamper) for tamper in (left_out, layers_swapped, norm_of_before)}
    yield "nothing", f"{sync_engines(engines, 0, probe, tolerance).mean:.3f} nats over the probe"
    for version, (name, harm) in enumerate({"nothing_loaded": nothing_loaded(engine), **harms}.items(), 1):
        with harm:
            try:
                sync_engines(engines, version, probe, tolerance)
                yield name, ""
            except RuntimeError as error:
                yield name, str(error)
    yield "nothing", f"{sync_engines(engines, 9, probe, tolerance).mean:.3f} nats over the probe"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", help="file of conf/online; its policy is model.path, without a warm start")
    parser.add_argument("overrides", nargs="*", help="settings that differ from the preset, each a key=value")
    given = parser.parse_args()
    config = load_run(given.preset, [*given.overrides, "model.warm_start=null"])
    prepare_process()
    policy = str(model_folder("model.path", str(config.model.path)))
    unnoticed = 0
    with engines_for(policy, config.model, config.cluster) as engines:
        engines.on_all_ranks("setup", policy, config.model, config.train, config.deepspeed, False)
        probe, limit = list(range(100, 164)), config.cluster.probe_tolerance(config.model.dtype)
        for name, said in found_out(engines, probe, limit):
            print(f"{name}: {said or 'NOT NOTICED'}", flush=True)
            unnoticed += not said
    sys.exit(bool(unnoticed))


if __name__ == "__main__":
    main()
