"""A Ray actor round one in-process vLLM engine: token ids in, sampled ids with log-probabilities out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sgpo_core.config.data import ModelSettings
from sgpo_core.config.training import ClusterSettings
from tasks.imports import importing
from tasks.workers.vllm_process import causes_named, losses_named, processes
from tasks.workers.weight_reload import WeightReload
from tasks.workers.weight_sync import Layout, Proof
from tasks.workers.weight_transfer import Transfer


@dataclass(frozen=True, slots=True)
class Request:
    """One response to sample. The seed alone decides it, whatever else is in the batch (float32, CPU)."""

    prompt_ids: Sequence[int]
    seed: int


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample; `stop_ids` end a response and are kept as its last token. `logprobs`: with log-probabilities."""

    temperature: float
    max_tokens: int
    stop_ids: Sequence[int]
    top_p: float = 1.0
    logprobs: bool = True


@dataclass(frozen=True, slots=True)
class Completion:
    """`token_ids` int32 [n]; `logprobs` float32 [n], nats, of the distribution sampled from (temperature included),
    or empty."""

    token_ids: np.ndarray
    logprobs: np.ndarray
    truncated: bool


class RolloutWorker:
    """Holds the engine for the whole flow; starting it is what costs."""

    asleep = False

    def __init__(self, policy: str, model: ModelSettings, cluster: ClusterSettings) -> None:
        with importing():
            from vllm import LLM  # here, not above: the flow's process must not load an engine

        self.version, self.max_num_seqs = -1, cluster.max_num_seqs
        with causes_named():
            self.llm = LLM(**engine_arguments(policy, model, cluster))

    def generate(
        self, groups: Sequence[Sequence[Request]], sampling: Sampling
    ) -> Iterator[tuple[int, list[Completion]]]:
        """Samples groups of requests and yields (place of the group, its completions) as soon as all of them are there.
        The engine is kept full to the last group: one that ends makes room for the next. Raises ProcessLost."""
        self._check_awake()
        with losses_named(self.llm):
            yield from self._generate(groups, sampling)

    def _generate(
        self, groups: Sequence[Sequence[Request]], sampling: Sampling
    ) -> Iterator[tuple[int, list[Completion]]]:
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        engine: Any = self.llm.llm_engine
        common = sampling_parameters(sampling) | {"detokenize": False, "output_kind": RequestOutputKind.FINAL_ONLY}
        waiting, running = iter(enumerate(groups)), 0
        unfinished: dict[int, list[Completion | None]] = {}
        while True:
            while running < 2 * self.max_num_seqs and (following := next(waiting, None)):
                number, requests = following
                unfinished[number] = [None] * len(requests)
                for i, request in enumerate(requests):
                    prompt = TokensPrompt(prompt_token_ids=list(request.prompt_ids))
                    engine.add_request(f"{number}/{i}", prompt, SamplingParams(seed=request.seed, **common))
                running += len(requests)
            if not unfinished:
                return
            for output in engine.step():
                number, i = map(int, output.request_id.split("/"))
                unfinished[number][i] = self._completion(output.outputs[0])
                running -= 1
                if all(unfinished[number]):
                    yield number, [completion for completion in unfinished.pop(number) if completion]

    @staticmethod
    def _completion(output: Any) -> Completion:
        flat = output.logprobs  # the sampled token is the first entry of each position
        logprobs = [flat.logprobs[i] for i in flat.start_indices] if flat is not None else []
        return Completion(
            token_ids=np.asarray(output.token_ids, np.int32),
            logprobs=np.asarray(logprobs, np.float32),
            truncated=output.finish_reason == "length",
        )

    def sleep(self) -> None:
        """Leaves its GPUs' memory to others until `wake`: the weights go to host memory, so that it wakes with those
        that it has, and the KV cache is dropped. (On the CPU it generates nothing until then, and that is all.)"""
        with losses_named(self.llm):
            self.llm.sleep(level=1)
            self.asleep = True

    def wake(self) -> None:
        with losses_named(self.llm):
            self.llm.wake_up()
            self.asleep = False

    def _check_awake(self) -> None:
        if self.asleep:  # vLLM would queue requests for ever
            raise RuntimeError("this engine is asleep: it has to be woken first")

    def weight_layouts(self) -> list[Layout]:
        """What the parameters of each of this engine's processes are made of. Raises ProcessLost."""
        with losses_named(self.llm):
            return list(self.llm.collective_rpc("weight_layout"))

    def receive_weights(self, transfer: Transfer, first_rank: int, version: int, probe_ids: Sequence[int]) -> Proof:
        """Takes over the trainer's weights and proves what this engine now holds and computes. `first_rank`: that of
        its first process in the transfer. Raises ProcessLost."""
        self._check_awake()
        with losses_named(self.llm):
            digests = tuple(self.llm.collective_rpc("receive_weights", args=(transfer, first_rank)))
            # A cached prefix was computed with the old weights and would silently be used on.
            if not self.llm.reset_prefix_cache():
                raise RuntimeError("the prefix cache of the old weights is in use: nothing may be generated meanwhile")
            self.version = version
            return Proof(version, digests, self._probe(probe_ids))

    def _probe(self, token_ids: Sequence[int]) -> tuple[float, ...]:
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt

        params = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0, detokenize=False)
        output = self.llm.generate([TokensPrompt(prompt_token_ids=list(token_ids))], [params], use_tqdm=False)[0]
        assert output.prompt_logprobs is not None
        positions = zip(token_ids[1:], output.prompt_logprobs[1:], strict=True)
        return tuple(float(entry[token].logprob) for token, entry in positions if entry is not None)

    def kv_sequences(self) -> float:
        """How many sequences of full length (model.max_length) the KV cache holds."""
        config = self.llm.llm_engine.vllm_config
        tokens = (config.cache_config.num_gpu_blocks or 0) * config.cache_config.block_size
        return float(tokens / config.model_config.max_model_len)


def engine_arguments(policy: str, model: ModelSettings, cluster: ClusterSettings) -> dict[str, Any]:
    """As vLLM's LLM takes them."""
    on_gpu = cluster.rollout_gpus > 0
    memory: dict[str, Any] = (
        {"gpu_memory_utilization": cluster.gpu_memory_utilization, **processes(cluster.rollout_gpus)}
        if on_gpu
        else {"kv_cache_memory_bytes": cluster.kv_cache_mib * 2**20}
    )
    return {
        "model": policy,
        "skip_tokenizer_init": True,
        "dtype": model.dtype,
        "max_model_len": model.max_length,
        "max_num_seqs": cluster.max_num_seqs,
        # On the CPU a seeded request fails when chunked prefill splits its prompt: leave room for all prompts.
        "max_num_batched_tokens": None if on_gpu else cluster.max_num_seqs * model.max_length,
        "enforce_eager": not on_gpu,
        "enable_sleep_mode": on_gpu and cluster.sleep,
        "enable_prefix_caching": True,
        "logprobs_mode": "processed_logprobs",
        "generation_config": "vllm",
        "disable_log_stats": True,
        "seed": 0,
        "worker_extension_cls": f"{WeightReload.__module__}.{WeightReload.__qualname__}",
        **memory,
    }


def sampling_parameters(sampling: Sampling) -> dict[str, Any]:
    """As vLLM's SamplingParams takes them."""
    return {
        **({"logprobs": 0, "flat_logprobs": True} if sampling.logprobs else {}),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "stop_token_ids": list(sampling.stop_ids),
        "ignore_eos": True,  # vLLM's own end is that of the folder the engine was started with: another run's, perhaps
    }
