"""Settings of the flow `benchmark-eval`: which benchmarks, and how a policy is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from sgpo_core.config.base import Fraction, Settings
from sgpo_core.config.data import EvalSettings
from sgpo_core.config.loading import load_preset
from sgpo_core.config.training import ClusterSettings

ChatTemplate = Literal["auto", "always", "never"]
Dtype = Literal["float32", "bfloat16"]


class AlarmSettings(Settings):
    level: Fraction = Field(0.01, description="chance of a false alarm a night, over all its comparisons (Holm)")


class EvaluationConfig(Settings):
    """Everything that decides an evaluation, besides the policy."""

    preset: str = Field("", description="the preset these settings came from")
    eval: EvalSettings = EvalSettings()
    chat_template: ChatTemplate = Field(
        "auto", description="wrap prompts in the tokenizer's chat template (auto: if it has one)"
    )
    thinks: bool | None = Field(
        None,
        description="whether policies are to think, where their chat templates can switch that (Qwen3); null: as the "
        "template has it",
    )
    dtype: Dtype = Field("float32", description="dtype of the weights in the engines; bfloat16 on GPUs")
    cluster: ClusterSettings = ClusterSettings()
    alarm: AlarmSettings = AlarmSettings()


def load_evaluation(overrides: Sequence[str] = ()) -> EvaluationConfig:
    """conf/benchmark_eval/default.yaml and Hydra overrides."""
    return load_preset(EvaluationConfig, "benchmark_eval", "default", overrides)
