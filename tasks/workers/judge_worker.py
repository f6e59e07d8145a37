"""A Ray actor round one in-process vLLM engine that judges: conversations in, replies out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sgpo_core.config.judge import JudgeEngineSettings
from sgpo_core.judges.chat import ChatReply, ChatRequest, after_thinking
from sgpo_core.judges.control_tokens import controls_of
from tasks.workers.vllm_process import losses_named, processes

_BATCH_TOKENS = 8192


class JudgeWorker:
    """Holds the engine for as long as runs use it; starting it is what costs."""

    def __init__(self, model: str, settings: JudgeEngineSettings) -> None:
        from vllm import LLM  # here, not above: the flow's process must not load an engine

        self.max_length = min(settings.max_length, context_length(model))
        self.llm = LLM(**judge_arguments(model, settings, self.max_length))
        self.tokenizer: Any = self.llm.get_tokenizer()  # of Hugging Face
        if getattr(self.tokenizer, "chat_template", None) is None:
            raise ValueError(f"{model} has no chat template: judge.model has to be a chat model or a trained judge")

    def control_tokens(self) -> tuple[str, ...]:
        """Of its tokenizer, to be kept out of text of others."""
        return controls_of(self.tokenizer)

    def chat(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        """Replies in the order of the requests; one that does not fit into the model's context has an error. Raises
        ProcessLost."""
        from vllm.inputs import TokensPrompt

        prompts = [self._encode(request) for request in requests]
        fitting = [i for i, ids in enumerate(prompts) if len(ids) < self.max_length]
        texts = [TokensPrompt(prompt_token_ids=prompts[i]) for i in fitting]
        parameters = [self._sampling(requests[i], len(prompts[i])) for i in fitting]
        with losses_named(self.llm):
            outputs = self.llm.generate(texts, parameters, use_tqdm=False) if fitting else []
        replies = [
            ChatReply("", error=f"prompt of {len(ids)} tokens, judge.engine.max_length allows {self.max_length}")
            for ids in prompts
        ]
        for i, output in zip(fitting, outputs, strict=True):
            replies[i] = self._reply(requests[i], len(prompts[i]), output.outputs[0])
        return replies

    def _reply(self, request: ChatRequest, prompt_length: int, output: Any) -> ChatReply:
        text, thought = after_thinking(output.text, bool(request.thinks))
        cut_off = output.finish_reason == "length"
        endless = cut_off and (not text if thought else bool(request.thinks))  # its beginning may stand in the prompt
        full = endless and request.max_tokens > self.max_length - prompt_length
        error = f"the judge's thinking does not end within judge.engine.max_length={self.max_length}" if full else ""
        return ChatReply(text, prompt_length, len(output.token_ids), error, cut_off, thought)

    def _encode(self, request: ChatRequest) -> list[int]:
        # A constrained reply begins at once: nothing is to be thought before it. The names are those of Qwen3 and of
        # DeepSeek-V3.1 and Granite; a template ignores the one that it does not know.
        think = bool(request.thinks and not request.choices)
        text = self.tokenizer.apply_chat_template(
            [{"role": m.role, "content": m.content} for m in request.messages],
            add_generation_prompt=True,
            tokenize=False,
            **({} if request.thinks is None else {"enable_thinking": think, "thinking": think}),
        )
        if request.choices and text.rstrip().endswith("<think>"):  # QwQ and R1 always open a thinking section
            text = f"{text.rstrip()}\n\n</think>\n\n"
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _sampling(self, request: ChatRequest, prompt_length: int) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        # Of a judge that thinks, the critique is what differs from vote to vote.
        temperature = 0.0 if request.choices and request.thinks else request.temperature
        return SamplingParams(
            temperature=temperature,
            seed=request.seed if temperature > 0 else None,
            max_tokens=min(request.max_tokens, self.max_length - prompt_length),
            structured_outputs=StructuredOutputsParams(choice=list(request.choices)) if request.choices else None,
        )


def judge_arguments(model: str, settings: JudgeEngineSettings, max_length: int) -> dict[str, Any]:
    """As vLLM's LLM takes them."""
    memory: dict[str, Any] = (
        {"gpu_memory_utilization": settings.gpu_memory_utilization, **processes(settings.gpus)}
        if settings.gpus
        # On the CPU a seeded request fails when its prompt is read in pieces: every prompt is read whole.
        else {
            "kv_cache_memory_bytes": settings.kv_cache_mib * 2**20,
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(max_length, _BATCH_TOKENS),
        }
    )
    return {
        "model": model,
        "dtype": settings.dtype,
        "max_model_len": max_length,
        "max_num_seqs": settings.max_num_seqs,
        "enforce_eager": not settings.gpus,
        "enable_prefix_caching": True,  # responses to one problem share its statement and reference
        "generation_config": "vllm",
        "disable_log_stats": True,
        "seed": 0,
        **memory,
    }


def context_length(model: str) -> int:
    """The longest text that a model was made for, tokens."""
    from transformers import AutoConfig

    return int(AutoConfig.from_pretrained(model, trust_remote_code=False).get_text_config().max_position_embeddings)
