"""How long the phases of an iteration take at best, about: counted work over what a GPU can do.

An estimate to compare settings by, not a promise. It leaves out start-up, grading, evaluation, the tail of the last
long responses, and what ranks wait for each other's weights (ZeRO-3 over PCIe can double an update).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sgpo_core.config.judge import JudgeSettings
from sgpo_core.config.run import TrainingConfig
from sgpo_core.sizing.hardware import Gpu
from sgpo_core.sizing.memory import GIB, WIDTH, resting_bytes
from sgpo_core.sizing.shapes import ModelShape

# Shares of a data sheet's figure that are reached, and bytes a second of a copy through host memory. Assumed, not
# measured: docs/gpu-proof.md has the commands that will.
MFU, PREFILL_MFU, BANDWIDTH, COPY = 0.35, 0.5, 0.6, 2e9
PROMPT = 200  # tokens of a problem, assumed
# Share of responses that a judge is asked about, by algorithm.credit.scope; assumed.
ASKED = {"none": 0.0, "all_negative": 0.15, "all_incorrect": 0.5}


@dataclass(frozen=True, slots=True)
class Phase:
    """Seconds of an iteration, what bounds them, and the number of GPUs that are at work meanwhile."""

    name: str
    seconds: float
    bound: str
    gpus: int


def phases(
    config: TrainingConfig, policy: ModelShape, judge: ModelShape | None, gpu: Gpu, response_tokens: float
) -> list[Phase]:
    """`response_tokens`: of a response, on average. All GPUs are of the kind `gpu`."""
    cluster, sampling = config.cluster, config.sampling
    responses = sampling.problems * sampling.group_size
    engines = cluster.rollout_actors
    seconds, bound = _decoding(
        engine_speed(policy, gpu, cluster.rollout_gpus, config.model.dtype),
        *(responses / engines, cluster.max_num_seqs, PROMPT, response_tokens),
    )
    found = [Phase("generate", seconds, bound, engines * cluster.rollout_gpus)]
    if judge is not None:
        found.append(_judging(config, judge, gpu, responses * ASKED[config.algorithm.credit.scope], response_tokens))
    return [*found, _update(config, policy, gpu, responses, response_tokens), _sync(config, policy)]


def iteration_seconds(estimate: Sequence[Phase], async_level: int) -> float:
    """Of a whole iteration. The judge works while others are generated; with `async_level` 1 both go on beside the
    update."""
    seconds = {phase.name: phase.seconds for phase in estimate}
    sampled = max(seconds["generate"], seconds.get("judge", 0.0))
    beside = max(sampled, seconds["update"]) if async_level else sampled + seconds["update"]
    return beside + seconds["sync"]


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds that an engine takes to read its weights once (`weights`), to read a token's keys and values (`token`),
    and to multiply a token with its weights (`product`)."""

    weights: float
    token: float
    product: float


def engine_speed(shape: ModelShape, gpu: Gpu, gpus: int, dtype: str) -> Speed:
    """Of an engine of so many GPUs."""
    width, bandwidth = WIDTH[dtype], gpus * gpu.bandwidth * 1e9 * BANDWIDTH
    return Speed(
        weights=width * shape.multiplied / bandwidth,
        token=shape.kv_bytes(width) / bandwidth,
        product=2 * shape.multiplied / (gpus * gpu.tflops * 1e12 * PREFILL_MFU),
    )


def _decoding(speed: Speed, sequences: float, at_once: int, prompt: float, written: float) -> tuple[float, str]:
    """Seconds that one engine takes to write `sequences` texts of `written` tokens behind prompts of `prompt`. A step
    reads the weights once and every sequence's keys and values."""
    batch = min(at_once, sequences)
    steps = sequences * written / batch
    read = speed.weights + batch * (prompt + written / 2) * speed.token
    computed = speed.product * batch
    prefill = speed.product * sequences * prompt
    return steps * max(read, computed) + prefill, "memory bandwidth" if read > computed else "arithmetic"


def verdict_tokens(settings: JudgeSettings, response_tokens: float) -> tuple[float, float]:
    """Tokens of a judge's prompt, and the most that it writes. The prompt has the problem, a reference as long as the
    response, the response, and 600 tokens of instructions; a critique is written, and thinking before it."""
    prompt = PROMPT + 2 * response_tokens + 600
    return prompt, settings.critique_tokens + (settings.thinking_tokens if settings.thinks else 0)


def _judging(config: TrainingConfig, shape: ModelShape, gpu: Gpu, asked: float, response_tokens: float) -> Phase:
    """Of verdicts that are half as long as they may be."""
    settings, engine = config.judge, config.judge.engine
    prompt, most = verdict_tokens(settings, response_tokens)
    seconds, bound = _decoding(
        engine_speed(shape, gpu, engine.gpus, engine.dtype),
        *(max(1.0, asked * settings.votes / engine.actors), engine.max_num_seqs, prompt, most / 2),
    )
    return Phase("judge", seconds, f"{bound}; goes on while others are generated", engine.actors * engine.gpus)


def _update(config: TrainingConfig, shape: ModelShape, gpu: Gpu, responses: int, response_tokens: float) -> Phase:
    """A product of a token with a parameter is 2 operations forward and 4 backward, and 2 more where the forward pass
    is repeated, or the reference's log-probabilities are computed, or the old ones of steps after the first. A group's
    prompt counts once."""
    train, loss = config.train, config.algorithm.loss
    tokens = responses * (response_tokens + PROMPT / config.sampling.group_size)
    each = (8 if train.gradient_checkpointing else 6) - (2 if config.model.lora.rank else 0)  # frozen: no gradients
    later = 1.0 if train.epochs > 1 else 1.0 - 1.0 / train.mini_batches
    old = 1.0 if config.algorithm.needs_entropies else later * (loss.old_logprobs == "trainer")
    once = 2 * (old + loss.needs_reference)
    work = (train.epochs * each + once) / 2 * tokens * shape.token_operations(PROMPT + response_tokens)
    ranks = config.cluster.trainer_ranks
    return Phase("update", work / (ranks * gpu.tflops * 1e12 * MFU), "arithmetic", ranks)


def _sync(config: TrainingConfig, shape: ModelShape) -> Phase:
    """Gathered, written to a file in memory, read by every engine at the same time, and read once more for the proof,
    on both sides. Broadcast: from GPU to GPU meanwhile, and into host memory for the proof alone, on both sides.
    Engines and ranks that sleep in turns go to host memory and back."""
    cluster, size = config.cluster, WIDTH[config.model.dtype] * shape.parameters
    copied = (2.0 if cluster.sync_by == "broadcast" else 4.0) * size
    if cluster.sleep:
        with_reference = config.algorithm.loss.needs_reference
        state = resting_bytes(shape, config.model, config.deepspeed, cluster.trainer_ranks, with_reference)
        copied += 2 * (size + state)
    return Phase("sync", copied / COPY, f"{size / GIB:,.1f} GiB of weights, copied through host memory", 0)
