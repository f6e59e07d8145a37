"""A Ray actor round one in-process vLLM engine that judges: conversations in, replies out."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import count
from queue import SimpleQueue
from typing import Any

from sgpo_core.config.judge import JudgeEngineSettings
from sgpo_core.judges.chat import ChatReply, ChatRequest, after_thinking
from sgpo_core.judges.control_tokens import controls_of
from tasks.imports import importing
from tasks.workers.vllm_process import causes_named, losses_named, processes

_BATCH_TOKENS = 8192


@dataclass
class _Call:
    """Requests that came together, their replies by place as far as they are there, and who waits for all of them."""

    requests: Sequence[ChatRequest]
    replies: dict[int, ChatReply] = field(default_factory=dict)
    answer: Future[list[ChatReply]] = field(default_factory=Future)

    def finish(self) -> None:
        """Answers where all replies are there."""
        if len(self.replies) == len(self.requests):
            self.answer.set_result([self.replies[place] for place in range(len(self.requests))])


class JudgeWorker:
    """Holds the engine for as long as runs use it; starting it is what costs.

    Calls may come from several threads, and are all in the engine together: those that come later join the ones before
    them, and no call waits for the longest reply of another. The engine belongs to one thread, which starts it too.
    """

    def __init__(self, model: str, settings: JudgeEngineSettings) -> None:
        self._calls: SimpleQueue[_Call] = SimpleQueue()
        # Request id -> its call, its place there, tokens of its prompt.
        self._running: dict[str, tuple[_Call, int, int]] = {}
        self._numbers = count()
        started: Future[None] = Future()
        threading.Thread(target=self._serve, args=(model, settings, started), daemon=True).start()
        started.result()

    def control_tokens(self) -> tuple[str, ...]:
        """Of its tokenizer, to be kept out of text of others."""
        return controls_of(self.tokenizer)

    def chat(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        """Replies in the order of the requests; one that does not fit into the model's context has an error. Raises
        ProcessLost."""
        self._calls.put(call := _Call(requests))
        return call.answer.result()

    def _serve(self, model: str, settings: JudgeEngineSettings, started: Future[None]) -> None:
        try:
            self._start(model, settings)
        except BaseException as error:
            started.set_exception(error)
            return
        started.set_result(None)
        while True:
            while not self._running or not self._calls.empty():
                self._begin(self._calls.get())
            self._step()

    def _start(self, model: str, settings: JudgeEngineSettings) -> None:
        with importing():
            from vllm import LLM  # here, not above: the flow's process must not load an engine

        self.max_length = min(settings.max_length, context_length(model))
        with causes_named():
            self.llm = LLM(**judge_arguments(model, settings, self.max_length))
        self.engine: Any = self.llm.llm_engine
        self.tokenizer: Any = self.llm.get_tokenizer()  # of Hugging Face
        if getattr(self.tokenizer, "chat_template", None) is None:
            raise ValueError(f"{model} has no chat template: judge.model has to be a chat model or a trained judge")

    def _begin(self, call: _Call) -> None:
        from vllm.inputs import TokensPrompt

        too_long = "prompt of {} tokens, judge.engine.max_length allows {}"
        try:
            for place, request in enumerate(call.requests):
                ids, name = self._encode(request), str(next(self._numbers))
                if len(ids) >= self.max_length:
                    call.replies[place] = ChatReply("", error=too_long.format(len(ids), self.max_length))
                    continue
                prompt, sampling = TokensPrompt(prompt_token_ids=ids), self._sampling(request, len(ids))
                self.engine.add_request(name, prompt, sampling)
                self._running[name] = call, place, len(ids)
        except Exception as error:
            self._fail(error, [call])
        else:
            call.finish()  # where there is nothing to wait for

    def _step(self) -> None:
        try:
            with losses_named(self.llm):
                outputs = self.engine.step()
        except Exception as error:
            self._fail(error, [call for call, _, _ in self._running.values()])
            return
        for output in outputs:
            call, place, prompt_length = self._running.pop(output.request_id)
            call.replies[place] = self._reply(call.requests[place], prompt_length, output.outputs[0])
            call.finish()

    def _fail(self, error: Exception, calls: Sequence[_Call]) -> None:
        names = [name for name, (call, _, _) in self._running.items() if any(call is failed for failed in calls)]
        self.engine.abort_request(names)
        for name in names:
            del self._running[name]
        for call in calls:
            if not call.answer.done():
                call.answer.set_exception(error)

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
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        # Of a judge that thinks, the critique is what differs from vote to vote.
        temperature = 0.0 if request.choices and request.thinks else request.temperature
        return SamplingParams(
            temperature=temperature,
            seed=request.seed if temperature > 0 else None,
            max_tokens=min(request.max_tokens, self.max_length - prompt_length),
            output_kind=RequestOutputKind.FINAL_ONLY,
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
