"""Settings of what goes in: the policy to start from, problem sets, how responses are sampled, benchmarks."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from sgpo_core.config.base import Fraction, Operational, Positive, Settings

AnswerForm = Literal["boxed", "hashes", "phrase", "any"]  # how a response gives its final answer


class LoraSettings(Settings):
    """Adapters that are trained in place of the model, beside every linear layer of its decoder."""

    rank: int = Field(0, ge=0, description="rank of the adapters (LoRA); 0: the whole model is trained")
    alpha: Positive = Field(32, description="what an adapter computes is multiplied by alpha / rank")


class ModelSettings(Settings):
    path: str | None = Field(
        None, description="policy to start from: a folder, a name in runs/models, or ORG/NAME@REVISION of the hub"
    )
    warm_start: str | None = Field(
        None,
        description="file of conf/warm_start: start from the policy of this supervised training, which is run first "
        "if its result is not there",
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="dtype of weights in rollout and in the trainer's forward pass"
    )
    max_length: Positive = Field(128, description="prompt and response together, tokens")
    chat_template: bool = Field(False, description="wrap prompts with the tokenizer's chat template")
    thinks: bool | None = Field(
        None,
        description="whether the policy is to think, where its chat template can switch that (Qwen3); null: as the "
        "template has it",
    )
    preamble: str = Field(
        "", description="text put before every problem: for a base model, problems with solutions in the form asked for"
    )
    instruction: str = Field("", description="text put after every problem")
    lora: LoraSettings = LoraSettings()

    @model_validator(mode="after")
    def _thinks_in_a_template(self) -> Self:
        if self.thinks is not None and not self.chat_template:
            raise ValueError("model.thinks is for model.chat_template=true: leave it out")
        return self

    @field_validator("instruction")
    @classmethod
    def _breaks_lines(cls, text: str) -> str:
        if text.startswith("\\n"):
            raise ValueError(
                "it begins with a backslash and an n, which are a line break in double quotes alone: in a shell write "
                "'model.instruction=\"\\n...\"'"
            )
        return text


class DataSettings(Settings):
    source: str = Field(
        "chains",
        description="chains or reasoning_gym (generated), a .jsonl or .parquet file, or a Hugging Face data set id",
    )
    subset: str | None = Field(
        None, description="configuration of a Hugging Face data set that has several; a task of reasoning_gym"
    )
    task: dict[str, bool | int | float | str] = Field(
        default_factory=dict, description="settings of the task of reasoning_gym, such as {min_terms: 6}"
    )
    split: str = Field("train", description="split of a Hugging Face data set, or of reasoning_gym (train, test)")
    revision: str | None = Field(None, description="revision of a Hugging Face data set")
    problem_column: str = Field("problem", description="column that holds the problem")
    answer_column: str = Field(
        "answer",
        description="column that holds the final answer; where its text has a line `#### 5` (GSM8K), what follows",
    )
    answer_type: Literal["any", "integer", "choice"] = Field(
        "any", description="what every final answer has to be; a row with another one is broken"
    )
    answer_form: AnswerForm = Field(
        "boxed",
        description="how a response has to give its final answer: \\boxed{5}, a line `#### 5`, `The answer is 5.`, or "
        "any of them (the first of these that it has)",
    )
    choice_columns: list[str] = Field(
        default_factory=list,
        max_length=9,
        description="columns of wrong choices, at most nine; they and the answer become (A), (B), ..., ordered by seed "
        "and problem",
    )
    reference_column: str | None = Field(None, description="column that holds a worked solution, its answer at the end")
    max_reference_steps: int | None = Field(
        None, gt=0, description="problems whose worked solution has more steps, its answer one of them, are left out"
    )
    domain_column: str | None = Field(None, description="column that names the domain of a problem (DISCO)")
    max_bad_rows: Operational[int] = Field(
        0, ge=0, description="broken rows that are skipped (and named) before the data set is refused"
    )
    count: Positive = Field(2048, description="chains, reasoning_gym: number of problems; elsewhere: at most so many")
    seed: int = Field(0, description="chains, reasoning_gym: seed of the generator")
    columns: int = Field(6, ge=1, le=12, description="chains: digits of each number")
    carry_rate: Fraction = Field(0.9, description="chains: share of columns whose digits sum to 10 or more")


class SamplingSettings(Settings):
    problems: Positive = Field(16, description="problems (groups) an iteration")
    group_size: int = Field(8, ge=2, description="responses to each problem")
    temperature: float = Field(1.0, gt=0, le=2, description="sampling temperature")
    max_tokens: Positive = Field(96, description="length limit of a response, tokens")


class BenchmarkSettings(Settings):
    data: DataSettings = DataSettings()
    prompt: str = Field(
        "{problem}\n\nPlease reason step by step, and put your final answer within \\boxed{}.",
        pattern=r"\{problem\}",
        description="prompt, {problem} stands for the problem; in a training run model.instruction takes its place",
    )
    k: Positive = Field(16, description="responses to each problem")
    temperature: float = Field(0.6, ge=0, le=2, description="sampling temperature")
    top_p: float = Field(0.95, gt=0, le=1, description="nucleus sampling")
    max_tokens: Positive = Field(
        8192, description="length limit of a response, tokens; in a training run sampling.max_tokens takes its place"
    )
    seed: int = Field(0, ge=0, description="decides the sampling; the same for all policies, so that they are paired")


class EvalSettings(Settings):
    every: Positive = Field(5, description="iterations between evaluations; the start and the end are always evaluated")
    sets: dict[str, BenchmarkSettings] = Field(default_factory=dict, description="name -> benchmark")
