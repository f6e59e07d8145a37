"""sync_file, sync_broadcast, sync_digest: weights of a model's shape from one process to another, as at every weight
sync: sent, put in place, and proved by digests on both sides. The peer is what is left without us: the same tensors
written to a file in memory by one process, read and put in place by the other, and no proof.

    python -m bench.weight_sync

runs it alone, on the CPU. It needs torch, transformers, pydantic, safetensors and xxhash.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file, save_file
from torch import multiprocessing
from transformers import AutoModelForCausalLM, Qwen2Config

from bench.figures import Figure, side_by_side
from sgpo_core.sizing.shapes import KNOWN, ModelShape
from tasks.workers.meeting import Meeting
from tasks.workers.weight_sync import ExpectedDigests, Layout, Part, digest
from tasks.workers.weight_transfer import BroadcastTransfer, FileTransfer, Transfer

SIZES = {"135M": "HuggingFaceTB/SmolLM2-135M-Instruct", "0.5B": "Qwen/Qwen2.5-0.5B-Instruct"}
REPEATS = 5
Weights = dict[str, torch.Tensor]


def measure() -> Iterator[Figure]:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)  # two processes, two cores
    folder = "/dev/shm" if Path("/dev/shm").is_dir() else None
    for size, name in SIZES.items():
        weights = weights_of(KNOWN[name])
        where = f"{sum(t.nbytes for t in weights.values()) / 1e6:.0f} MB of bfloat16 ({size}), a thread each side, CPU"
        with TemporaryDirectory(dir=folder) as shared, Receiver(weights) as receiver:
            ways = {
                "sync_file": FileTransfer(f"{shared}/policy"),
                "sync_broadcast": BroadcastTransfer(Meeting(2, file=f"{shared}/meeting"), 60.0),
            }
            plain = partial(copied, weights, f"{shared}/copy.safetensors", receiver)
            for figure, transfer in ways.items():
                ours, peer = side_by_side(partial(synced, weights, transfer, receiver), plain, REPEATS)
                how = f"peer: through a file, without a proof; {where}"
                yield Figure(figure, ours, "s", (">=", 1 / 1.5), how, peer, peer / ours)
    began = time.perf_counter()
    for tensor in weights.values():
        digest(tensor)
    elements = sum(tensor.numel() for tensor in weights.values())
    per_element = (time.perf_counter() - began) * 1e9 / elements
    yield Figure("sync_digest", per_element, "ns an element", ("<=", 2.0), where)


def weights_of(shape: ModelShape) -> Weights:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(Qwen2Config(**shape.config()), dtype=torch.bfloat16)
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def layout_of(weights: Weights) -> Layout:
    """As vLLM fuses them: an attention's three projections are one parameter, two of a feed-forward layer's another."""
    fused = {"q_proj": "qkv_proj", "k_proj": "qkv_proj", "v_proj": "qkv_proj", "gate_proj": "gate_up_proj"}
    fused["up_proj"] = "gate_up_proj"
    layout: dict[str, list[Part]] = {}
    for name in weights:
        *path, module, parameter = name.split(".")
        layout.setdefault(".".join([*path, fused.get(module, module), parameter]), []).append(Part(name))
    return {name: tuple(parts) for name, parts in layout.items()}


def synced(weights: Weights, transfer: Transfer, receiver: Receiver) -> float:
    began = time.perf_counter()
    expected = ExpectedDigests([layout_of(weights)])
    if transfer.together:
        receiver.ask(transfer)
    transfer.send(expected.noting(weights.items()))
    if not transfer.together:
        receiver.ask(transfer)
    if receiver.answer() != expected.result()[0]:
        raise RuntimeError("other weights have arrived")
    return time.perf_counter() - began


def copied(weights: Weights, path: str, receiver: Receiver) -> float:
    began = time.perf_counter()
    save_file(weights, path)
    receiver.ask(path)
    receiver.answer()
    return time.perf_counter() - began


class Receiver:
    """A process that has room for the weights."""

    def __init__(self, weights: Weights) -> None:
        self._here, there = multiprocessing.get_context("spawn").Pipe()
        shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
        self._process = multiprocessing.get_context("spawn").Process(target=_receive, args=(there, shapes), daemon=True)
        self._process.start()

    def __enter__(self) -> Receiver:
        self.answer()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    def ask(self, way: Transfer | str) -> None:
        self._here.send(way)

    def answer(self) -> object:
        return self._here.recv()


def _receive(pipe: Connection, shapes: dict[str, tuple[int, ...]]) -> None:
    torch.set_num_threads(1)
    held: Weights = {}
    places: Weights = {}  # tensor of the model -> its rows of what is held
    for parameter, parts in layout_of(dict.fromkeys(shapes, torch.empty(0))).items():
        rows = [shapes[part.name][0] for part in parts]
        held[parameter] = torch.zeros(sum(rows), *shapes[parts[0].name][1:], dtype=torch.bfloat16)
        places |= zip([part.name for part in parts], held[parameter].split(rows), strict=True)
    pipe.send("ready")
    while True:
        way = pipe.recv()
        sent = load_file(way).items() if isinstance(way, str) else way.receive(1, torch.device("cpu"))
        for name, tensor in sent:
            places[name].copy_(tensor)
        pipe.send(None if isinstance(way, str) else {name: digest(tensor) for name, tensor in held.items()})


if __name__ == "__main__":
    for one in measure():
        print(one.line(), flush=True)
