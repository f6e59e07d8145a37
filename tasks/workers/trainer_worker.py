"""A Ray actor that is one DeepSpeed rank: ZeRO 0-3, any number of ranks, no launcher.

Losses are sums with global denominators in the token weights. DeepSpeed averages gradients over ranks, so the loss is
multiplied by their number: the result depends neither on ranks nor on micro-batches.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sgpo_core.config.algorithm import LossSettings
from sgpo_core.config.data import ModelSettings
from sgpo_core.config.training import DeepSpeedSettings, TrainSettings
from sgpo_core.rl.losses import policy_loss, supervised_loss, truncated_importance
from sgpo_core.rl.training_samples import MicroBatch, TrainingSample, collate, forward_sample
from sgpo_core.types import TokenLogprobs
from tasks.imports import importing
from tasks.workers.compiled_ops import load_cpu_adam, load_shared_memory_op
from tasks.workers.deepspeed_config import deepspeed_config
from tasks.workers.lora import Exported, adapter_tensors, add_adapters, exported, write_config
from tasks.workers.meeting import Meeting, host_meeting
from tasks.workers.optimizer_state import load_state, save_state
from tasks.workers.policy_model import PolicyModel, load_policy
from tasks.workers.weight_sync import Digests, ExpectedDigests, Layout
from tasks.workers.weight_transfer import Named, Transfer, on_the_cpu, write_weights


@dataclass(frozen=True, slots=True)
class RankStats:
    """Sums over this rank's share of one optimizer step (add them over ranks), but for `grad_norm`, which is global."""

    loss: float = 0.0
    tokens: int = 0
    clipped: int = 0
    kl: float = 0.0
    entropy: float = 0.0
    logprob_difference: float = 0.0  # sum of |trainer - sampler|, nats
    grad_norm: float = 0.0


_PATIENCE = timedelta(days=1)  # of a rank with its peers: who hangs is found by whoever asks the ranks


class TrainerWorker:
    """One rank. Every method that computes is called on all ranks together."""

    def __init__(self, rank: int, world_size: int) -> None:
        self.rank, self.world_size = rank, world_size
        self.engine: Any = None
        self.reference: PolicyModel | None = None
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # twice the writing
        # It plans anew for every shape, and hardly two micro-batches have the same.
        torch.backends.cuda.enable_cudnn_sdp(False)

    def host_meeting(self, size: int, timeout_s: float | None = None) -> Meeting:
        """Where `size` processes on several nodes, this one the first, can meet (asked of rank 0)."""
        return host_meeting(size, _PATIENCE if timeout_s is None else timedelta(seconds=timeout_s))

    def connect(self, meeting: Meeting) -> None:
        """To the other ranks."""
        with importing():
            import deepspeed

        load_shared_memory_op()

        os.environ |= {"RANK": str(self.rank), "WORLD_SIZE": str(self.world_size), "LOCAL_RANK": "0"}
        if meeting.file:  # all are on this node
            os.environ |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
        backend, store = "nccl" if torch.cuda.is_available() else "gloo", meeting.store(self.rank, _PATIENCE)
        torch.distributed.init_process_group(
            backend, timeout=_PATIENCE, store=store, rank=self.rank, world_size=self.world_size
        )
        deepspeed.init_distributed(backend, auto_mpi_discovery=False, timeout=_PATIENCE)
        self.device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")

    def setup(
        self, policy: str, model: ModelSettings, train: TrainSettings, sharding: DeepSpeedSettings, with_reference: bool
    ) -> None:
        """Loads a policy with a fresh optimizer; called again for every run that uses this actor."""
        import deepspeed
        from transformers.integrations import HfDeepSpeedConfig

        self._let_go()
        self.policy, self.model, self.train, self.steps_done = policy, model, train, 0
        config = deepspeed_config(model, train, sharding)
        # Under ZeRO-3 every rank holds its share from the beginning: nowhere is there a whole model.
        sharded = HfDeepSpeedConfig(config) if sharding.zero_stage == 3 else None
        lm = load_policy(policy, model.dtype, train.gradient_checkpointing)
        if model.lora.rank:
            add_adapters(lm, model.lora)
        if sharding.offload_optimizer:
            load_cpu_adam()
        self.engine, *_ = deepspeed.initialize(model=PolicyModel(lm), config=config)
        del sharded  # what is loaded from now on is whole
        self.engine.train()
        self._grad_norm = 0.0
        self._zero = sharding.stage(model.dtype) > 0
        if not self._zero:  # there DeepSpeed clips without telling the norm: `_clip` does it
            self.engine.optimizer.register_step_pre_hook(self._clip)
        self.reference = (
            PolicyModel(load_policy(policy, model.dtype, train.gradient_checkpointing).to(self.device)).eval()
            if with_reference
            else None
        )

    def _let_go(self) -> None:
        """Of the model of the run before, so that two are never in memory."""
        if self.engine is None:
            return
        self.engine.destroy()
        self.engine = self.reference = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def sleep(self) -> None:
        """Leaves its GPU's memory to others until `wake`: all that it holds goes to host memory. Not under ZeRO-3,
        whose state DeepSpeed moves for its own compiled optimizer alone."""
        if self.engine is None:
            return
        if self._zero:
            # Page-locked memory would come in powers of two, and be allocated anew each time.
            self.engine.offload_states(pin_memory=False)
        self._move_the_rest(torch.device("cpu"))
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def wake(self) -> None:
        if self.engine is None:
            return
        if self._zero:
            self.engine.reload_states()
        self._move_the_rest(self.device)

    def _move_the_rest(self, device: torch.device) -> None:
        """What DeepSpeed does not: the reference, what is not trained beside adapters, and without ZeRO everything."""
        for parameter in self.engine.module.parameters():
            if not (self._zero and parameter.requires_grad):
                parameter.data = parameter.data.to(device)
        if not self._zero:
            for state in self.engine.optimizer.state.values():
                state |= {name: value.to(device) for name, value in state.items() if value.dim()}
        if self.reference is not None:
            self.reference.to(device)

    def _clip(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        limit = self.train.grad_clip or float("inf")
        self._grad_norm = float(nn.utils.clip_grad_norm_(self.engine.module.parameters(), limit))

    def update(
        self, steps: Sequence[Sequence[Sequence[TrainingSample]]], loss: LossSettings, temperature: float
    ) -> list[RankStats]:
        """One optimizer step for each entry of `steps`, itself a list of micro-batches (this rank's share)."""
        return [self._policy_step([collate(samples) for samples in step], loss, temperature) for step in steps]

    def _policy_step(self, batches: Sequence[MicroBatch], settings: LossSettings, temperature: float) -> RankStats:
        sums = torch.zeros(6, dtype=torch.float64, device=self.device)  # read once: each reading waits for the GPU
        for host_batch in batches:
            batch = host_batch.to(self.device)
            logprobs, entropy = self.engine(batch, temperature)
            old = logprobs.detach() if batch.old_logprobs is None else batch.old_logprobs
            advantages = batch.advantages
            if settings.tis_cap is not None:
                advantages = advantages * truncated_importance(old, batch.sampler_logprobs, settings.tis_cap)
            terms = policy_loss(
                logprobs,
                old,
                advantages,
                batch.weights,
                clip_low=settings.clip_low,
                clip_high=settings.clip_high,
                dual_clip=settings.dual_clip,
                kl_coef=settings.kl_coef,
                reference_logprobs=self._reference_logprobs(batch, temperature),
                ratio=settings.ratio,
                rows=batch.row,
            )
            self.engine.backward(terms.loss * self.world_size)
            counted = batch.weights > 0
            difference = torch.where(counted, (logprobs.detach() - batch.sampler_logprobs).abs(), 0.0).sum()
            parts = (terms.loss.detach(), terms.token_count, terms.clipped_tokens, terms.kl_sum)
            sums += torch.stack([p.double() for p in (*parts, torch.where(counted, entropy, 0.0).sum(), difference)])
        norm = self._step(self.train.lr * min(1.0, (self.steps_done + 1) / max(1, self.train.warmup_steps)))
        value = sums.tolist()
        return RankStats(value[0], int(value[1]), int(value[2]), value[3], value[4], value[5], norm)

    def token_logprobs(
        self, micro_batches: Sequence[Sequence[TrainingSample]], temperature: float
    ) -> list[TokenLogprobs]:
        """Of this rank's samples, in their order: log-probabilities and entropies of their response tokens."""
        with torch.no_grad():
            computed = [self.engine(collate(samples).to(self.device), temperature) for samples in micro_batches]
        found: list[TokenLogprobs] = []
        for samples, both in zip(micro_batches, computed, strict=True):  # read when all are on their way
            ends = np.cumsum([len(s.weights) for s in samples])[:-1]
            logprobs, entropies = (np.split(values.cpu().numpy(), ends) for values in both)
            found += [TokenLogprobs(*parts) for parts in zip(logprobs, entropies, strict=True)][: len(samples)]
        return found

    def _reference_logprobs(self, batch: MicroBatch, temperature: float) -> Tensor | None:
        if self.reference is None:
            return None
        with torch.no_grad():
            return self.reference(batch, temperature)[0]

    def supervised(self, steps: Sequence[tuple[float, Sequence[Sequence[TrainingSample]]]]) -> list[float]:
        """Supervised steps, each (learning rate, micro-batches); returns this rank's share of each step's loss."""
        losses = []
        for lr, micro_batches in steps:
            total = 0.0
            for samples in micro_batches:
                batch = collate(samples).to(self.device)
                loss = supervised_loss(self.engine(batch)[0], batch.weights)
                self.engine.backward(loss * self.world_size)
                total += float(loss.detach())
            self._step(lr)
            losses.append(total)
        return losses

    def _step(self, lr: float) -> float:
        """The optimizer's step, on all ranks; returns the global gradient norm before clipping."""
        for group in self.engine.optimizer.param_groups:
            group["lr"] = lr
        self.engine.step()
        self.steps_done += 1
        return float(self.engine.get_global_grad_norm() or 0.0) if self._zero else self._grad_norm

    def probe(self, token_ids: Sequence[int]) -> tuple[float, ...]:
        """Log-probabilities (nats) of all tokens of a text but its first."""
        ids = list(token_ids)
        with torch.no_grad():
            logprobs, _ = self.engine(collate([forward_sample(ids[:1], ids[1:])]).to(self.device))
        return tuple(logprobs.cpu().tolist())

    def send_weights(self, transfer: Transfer, layouts: Sequence[Layout]) -> tuple[Digests, ...]:
        """Rank 0 sends the weights, and returns the digests that the parameters of engines of these layouts have to
        have."""
        weights, expected = self._whole(exported(self.engine.module.lm)), ExpectedDigests(layouts)
        if not transfer.together:  # once for both, the file and the digests
            weights = ((name, tensor.cpu()) for name, tensor in weights)
        if self.rank == 0:
            transfer.send(expected.noting(weights))
            return expected.result()
        for _ in weights:  # it takes part in gathering them
            pass
        return ()

    def export(self, path: str) -> None:
        """Rank 0 writes the weights as one safetensors file, whole or not at all."""
        tensors = on_the_cpu(self._whole(exported(self.engine.module.lm)))
        if self.rank == 0:
            write_weights(Path(path), tensors)

    def export_adapter(self, folder: str) -> None:
        """Rank 0 writes the adapters alone, as peft reads them; nothing where the whole model is trained."""
        tensors = on_the_cpu(self._whole(adapter_tensors(self.engine.module.lm)))
        if tensors:
            write_weights(Path(folder) / "adapter_model.safetensors", tensors)
            write_config(self.model.lora, self.policy, folder)

    def _whole(self, wanted: Iterable[Exported]) -> Iterator[Named]:
        """On rank 0 one tensor after the other, there until the next is asked for; none on other ranks, which have to
        ask, too."""
        import deepspeed

        for tensor in wanted:
            parts = tensor.parameters
            with deepspeed.zero.GatheredParameters(parts, enabled=hasattr(parts[0], "ds_id")):
                if self.rank == 0:
                    yield tensor.name, tensor.make()

    def save(self, folder: str) -> None:
        save_state(self.engine, Path(folder), self.steps_done)

    def load(self, folder: str) -> None:
        self.steps_done = load_state(self.engine, Path(folder))

    def peak_memory(self) -> int:
        """Bytes: the most that this rank has had of its GPU since `setup`; on the CPU, of memory since its process
        began."""
        import resource

        if torch.cuda.is_available():
            return torch.cuda.max_memory_reserved()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def trainer_environment(threads: int, on_gpu: bool, share: float = 1.0) -> dict[str, str]:
    """Variables of the actor's process; OpenMP reads its own when it is loaded. `share`: of its GPU's memory, where an
    engine has the rest.

    Threads wait asleep: where they spin and anything else wants a core, a step takes 5 times as long (measured).
    cuBLAS computes the same twice only with a workspace of a fixed size; without it torch warns at every product.
    """
    variables = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
    if not on_gpu:
        return variables | {"DS_ACCELERATOR": "cpu"}
    variables["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    if share < 1:  # at its limit torch gives back what it has cached
        given = os.environ.get("PYTORCH_CUDA_ALLOC_CONF")
        limit = f"per_process_memory_fraction:{share:g}"
        variables["PYTORCH_CUDA_ALLOC_CONF"] = f"{given},{limit}" if given else limit
    return variables
