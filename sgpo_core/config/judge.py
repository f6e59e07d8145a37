"""Settings of the judge; see docs/judges.md for how to choose."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from sgpo_core.config.base import Fraction, Operational, Positive, Settings

_OURS = ("model", "messages", "stream", "n")  # of a request's body: the client reads the reply to these
_HELD = ("llm", "trained")  # judges that are models in engines of the run
_SECRETS = ("api_key", "apikey", "key", "authorization", "password", "secret")  # settings are shown and recorded


class JudgeEngineSettings(Settings):
    """Of the judges `trained` and `llm`."""

    actors: Operational[Positive] = Field(1, description="vLLM engines that judge")
    threads: Operational[Positive] = Field(1, description="CPU threads of each")
    gpus: Operational[int] = Field(0, ge=0, description="GPUs of each (tensor parallel); 0: CPU")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="dtype of the judge's weights")
    max_length: Positive = Field(4096, description="prompt and verdict together, tokens")
    max_num_seqs: Operational[Positive] = Field(64, description="responses that one engine judges at a time")
    kv_cache_mib: Operational[Positive] = Field(128, description="KV cache of each CPU engine, MiB")
    gpu_memory_utilization: Operational[Fraction] = Field(
        0.9, description="share of GPU memory that each GPU engine may take"
    )


class EndpointSettings(Settings):
    """Of the judge `endpoint`, any OpenAI-compatible server. The key comes from SGPO_JUDGE_API_KEY or a Prefect block,
    never from a setting."""

    url: str = Field("", description="base URL, e.g. http://127.0.0.1:8000/v1; empty: from SGPO_JUDGE_URL")
    key_block: Operational[str] = Field(
        "", description="Prefect Secret block that holds the key; empty: from SGPO_JUDGE_API_KEY"
    )
    concurrency: Operational[Positive] = Field(32, description="requests at a time")
    requests_per_minute: Operational[int] = Field(0, ge=0, description="rate limit, tries included; 0: none")
    timeout_s: Operational[float] = Field(
        60.0, gt=0, description="seconds that a try may take, from first to last byte"
    )
    retries: Operational[int] = Field(
        4,
        ge=0,
        description="further tries after 429, 5xx, a lost connection, a timeout or a broken reply, waiting longer "
        "each time",
    )
    max_calls: Operational[int] = Field(0, ge=0, description="spending cap of a process, tries; 0: none")
    max_tokens: Operational[int] = Field(
        0,
        ge=0,
        description="spending cap of a process, tokens read and written; 0: none; requests that are under way are "
        "still finished",
    )
    reasoning_effort: str = Field(
        "", description="how much a reasoning model thinks: low, medium, high (OpenAI, gpt-oss); empty: not sent"
    )
    extra_body: dict[str, Any] = Field(
        {}, description="further fields of every request, as the server's documentation has them; never a key"
    )

    @field_validator("extra_body")
    @classmethod
    def _not_ours(cls, fields: dict[str, Any]) -> dict[str, Any]:
        if taken := [name for name in _OURS if name in fields]:
            raise ValueError(f"judge.endpoint.extra_body may not hold {', '.join(taken)}: leave it out")
        if secret := [name for name in fields if name.lower() in _SECRETS]:
            raise ValueError(f"judge.endpoint.extra_body may not hold {secret[0]}: the key goes to SGPO_JUDGE_API_KEY")
        return fields


class JudgeSettings(Settings):
    name: str = Field(
        "rule",
        description="who finds the first wrong step: rule, reference, trained, llm, endpoint, or random, a control",
    )
    model: str = Field(
        "",
        description="trained: a folder, or a preset in conf/judge_training, made when missing; llm: folder or hub id; "
        "endpoint: the model's name there",
    )
    prompt: Literal["critique-v2", "marker-v1"] = Field(
        "critique-v2", description="template: critique-v2 for chat models, marker-v1 for trained judges"
    )
    reference: bool = Field(True, description="show the judge the reference solution, where there is one")
    votes: Positive = Field(1, description="how often the judge is asked; the majority decides")
    temperature: float = Field(
        0.0, ge=0, le=2, description="sampling temperature of the judge; several votes need one above 0"
    )
    critique_tokens: Positive = Field(1024, description="length limit of the critique before the verdict")
    thinks: bool | None = Field(
        None,
        description="whether the judge thinks before it writes. true: a reasoning model (o4-mini, QwQ, Qwen3, gpt-oss, "
        "DeepSeek-R1), which gets thinking_tokens; false: one that can do both is told not to; null: nothing is sent",
    )
    thinking_tokens: Positive = Field(
        8192, description="room for the thinking in the limit of each reply, critique and verdict, where thinks=true"
    )
    seed: int = Field(0, ge=0, description="seed of votes, of noise and of the random judge")
    noise: Fraction = Field(0.0, description="share of verdicts replaced by random ones, to study the effect of errors")
    cache: Operational[bool] = Field(True, description="keep verdicts, and share them between runs")
    max_abstained_frac: Operational[Fraction] = Field(
        0.5, description="share of abstentions among judged responses that counts as failing"
    )
    patience: Operational[Positive] = Field(5, description="iterations in a row that may fail before the run stops")
    min_f1: Operational[Fraction] = Field(
        0.0, description="F1 on gate_data that the judge must reach before a run starts; 0: no gate"
    )
    gate_data: Operational[str] = Field("chains", description="what min_f1 is measured on; see judge_eval's data.path")
    gate_limit: Operational[int] = Field(
        0, ge=0, description="solutions of gate_data that are judged for it, evenly over the set; 0: all"
    )
    drift_sample: Operational[Fraction] = Field(
        0.5, description="share of verdicts compared with the rule judge's, where that one is exact (chains); 0: none"
    )
    drift_alarm: Operational[Fraction] = Field(
        0.8, description="agreement of the two below which every iteration warns"
    )
    engine: JudgeEngineSettings = JudgeEngineSettings()
    endpoint: EndpointSettings = EndpointSettings()

    @property
    def gpus(self) -> int:
        """GPUs of its engines; other judges have none."""
        return self.engine.actors * self.engine.gpus if self.name in _HELD else 0

    @property
    def label(self) -> str:
        """What stands for it in tags."""
        return f"{self.name} noise={self.noise:g}" if self.noise else self.name

    @model_validator(mode="after")
    def _consistent(self) -> JudgeSettings:
        if self.votes > 1 and self.temperature == 0:
            raise ValueError(
                f"judge.votes={self.votes} at judge.temperature=0 are all the same: set it above 0, or votes=1"
            )
        if self.endpoint.reasoning_effort and self.thinks is None:
            raise ValueError(
                f"judge.endpoint.reasoning_effort={self.endpoint.reasoning_effort} is for a judge that thinks: set "
                "judge.thinks=true as well, or leave it empty"
            )
        return self
