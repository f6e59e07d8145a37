"""rehearsal: two iterations of an online preset's phases on this machine, with random weights of its policy's shape, so
that neither the model nor its data have to be there: sync, generate, update. Seconds against the
estimate of `sgpo_core.sizing.seconds`, memory against what `sgpo_core.sizing.memory` computes.

    python -m bench.rehearsal 0.5b sampling.problems=16

Every response has `sampling.max_tokens` tokens, for random weights end none. The judge has no part in it. The last
iteration is measured: in the first one kernels are compiled and memory is taken.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from tempfile import TemporaryDirectory
from threading import Event, Thread

import numpy as np
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from bench.figures import Figure
from sgpo_core.config.algorithm import LossSettings
from sgpo_core.config.run import RunConfig, load_run
from sgpo_core.rl.training_samples import TrainingSample
from sgpo_core.sizing.memory import CONTEXT, GIB, trainer_memory
from sgpo_core.sizing.seconds import PROMPT, phases
from sgpo_core.sizing.shapes import KNOWN, ModelShape
from tasks.engines.cluster import Engines, engines_for
from tasks.engines.generation import group_requests, stream_groups
from tasks.engines.sync import sync_engines
from tasks.gpus import devices
from tasks.paths import home
from tasks.sizing import shape_of, this_machine
from tasks.training import train_on, with_old_logprobs
from tasks.workers.rollout_worker import Completion, Sampling

ITERATIONS = 2
Seconds = dict[str, float]


def measure(preset: str, overrides: list[str]) -> Iterator[Figure]:
    """All of them, of one run of the phases."""
    config = load_run(preset, overrides)
    with TemporaryDirectory(dir=home(), prefix="rehearsal-") as folder, MemoryInUse() as in_use:
        command = [sys.executable, "-m", "bench.rehearsal", preset, *overrides, "--make", folder]
        subprocess.run(command, check=True)  # its memory of the GPU ends with it
        began = time.perf_counter()
        with engines_for(folder, config.model, config.cluster) as engines:
            engines.on_all_ranks("setup", folder, config.model, config.train, config.deepspeed, False)
            start = time.perf_counter() - began
            for version in range(ITERATIONS):
                seconds = iteration(config, engines, version)
            peak = max(engines.on_all_ranks("peak_memory")) / GIB
    yield Figure("rehearsal_start", start, "s", ("<=", 300.0), "until engines and ranks can work")
    yield from _speed(config, seconds)
    yield from _memory(config, peak, in_use.most)


def policy_shape(config: RunConfig) -> ModelShape:
    """Raises SystemExit for a policy whose shape is not known here."""
    if (known := shape_of(str(config.model.path))) is None:
        raise SystemExit(f"model.path={config.model.path}: give a folder, or one of {', '.join(KNOWN)}")
    return known


def iteration(config: RunConfig, engines: Engines, version: int) -> Seconds:
    """Seconds of each phase; what they compute goes to standard error."""
    rng, sampling, count = np.random.default_rng(version), config.sampling, config.train.mini_batches
    budget, temperature = config.train.micro_batch_tokens, sampling.temperature
    prompts = rng.integers(0, policy_shape(config).vocabulary, (sampling.problems, PROMPT)).tolist()
    requests = group_requests(prompts, sampling.group_size, lambda g, s: g * sampling.group_size + s)
    marks = [time.perf_counter()]
    probe = sync_engines(engines, version, prompts[0], config.cluster.probe_tolerance(config.model.dtype))
    marks.append(time.perf_counter())
    groups = dict(stream_groups(engines, requests, Sampling(temperature, sampling.max_tokens, ())))
    marks.append(time.perf_counter())
    loss, members = config.algorithm.loss, [(prompts[g], response) for g in sorted(groups) for response in groups[g]]
    samples = [_sample(*member, len(members) // count, i, loss) for i, member in enumerate(members)]
    steps = [samples[len(samples) * i // count : len(samples) * (i + 1) // count] for i in range(count)]
    steps = with_old_logprobs(engines, steps, budget, temperature)
    stats = train_on(engines, steps, budget, loss, temperature)
    marks.append(time.perf_counter())
    apart = stats[0].logprob_difference / stats[0].tokens
    print(
        f"trainer and engine differ by {probe.mean:.4f} nats over the probe, by {apart:.4f} over the tokens of the "
        f"first step; gradient norm {stats[-1].grad_norm:.3g}",
        file=sys.stderr,
    )
    return dict(zip(("sync", "generate", "update"), np.diff(marks).tolist(), strict=True))


def _sample(prompt: list[int], response: Completion, responses: int, number: int, loss: LossSettings) -> TrainingSample:
    """One of so many in a mini-batch; every second one counts as right."""
    tokens = len(response.token_ids)
    weights = np.full(tokens, 1.0 / (responses * tokens), np.float32)
    advantages = np.full(tokens, 1.0 if number % 2 else -1.0, np.float32)
    sampler = response.logprobs
    return TrainingSample(
        *(np.array([*prompt, *response.token_ids], np.int32), weights, advantages, sampler),
        old_logprobs=sampler if loss.old_logprobs == "sampler" else None,
    )


def _speed(config: RunConfig, seconds: Seconds) -> Iterator[Figure]:
    sampling, machine = config.sampling, this_machine(config)
    estimate: Seconds = {}
    if machine and machine.gpu.tflops:
        found = phases(config, policy_shape(config), None, machine.gpu, sampling.max_tokens)
        estimate = {phase.name: phase.seconds for phase in found}
    how = f"peer: estimated; {sampling.problems} x {sampling.group_size} responses of {sampling.max_tokens} tokens"
    for name, value in seconds.items():
        peer = estimate.get(name)
        yield Figure(f"rehearsal_{name}", value, "s", (">=", 0.5), how, peer, peer / value if peer else None)


def _memory(config: RunConfig, peak: float, used: float) -> Iterator[Figure]:
    ranks = config.cluster.trainer_ranks
    parts = trainer_memory(policy_shape(config), config.model, config.train, config.deepspeed, ranks)
    computed = sum(parts.values()) + CONTEXT  # whose larger part is the allocator's
    how = f"peer: computed ({', '.join(f'{part} {size:.1f}' for part, size in parts.items())}, CUDA {CONTEXT})"
    yield Figure("rehearsal_trainer_memory", peak, "GiB", (">=", 0.85), how, computed, computed / peak)
    if used:
        here = devices()[0].memory
        yield Figure("rehearsal_device_memory", used, "GiB", ("<=", here), f"of {here:.1f}, engine and rank together")


class MemoryInUse:
    """`most`: GiB of the fullest GPU, asked for twice a second."""

    def __init__(self) -> None:
        self.most, self._over = 0.0, Event()
        self._thread = Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._over.wait(0.5):
            self.most = max([self.most, *(device.memory - device.free for device in devices())])

    def __enter__(self) -> MemoryInUse:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def make(preset: str, overrides: list[str], folder: str) -> None:
    """Writes a policy with random weights."""
    config = load_run(preset, overrides)
    described = Qwen2Config(**policy_shape(config).config(), max_position_embeddings=config.model.max_length)
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(described, dtype=getattr(torch, config.model.dtype))
    model.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.rehearsal", description=__doc__.split("\n\n")[0])
    parser.add_argument("preset", help="file of conf/online")
    parser.add_argument("overrides", nargs="*", help="settings that differ from the preset, each a key=value")
    parser.add_argument("--make", metavar="FOLDER", help="only write the policy with random weights")
    arguments = parser.parse_args()
    if arguments.make:
        make(arguments.preset, arguments.overrides, arguments.make)
        return
    for figure in measure(arguments.preset, arguments.overrides):
        print(figure.line(), flush=True)


if __name__ == "__main__":
    main()
