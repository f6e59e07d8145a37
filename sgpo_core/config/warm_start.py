"""Settings of the flow `warm-start`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Self

from pydantic import Field, model_validator

from sgpo_core.config.base import Fraction, Operational, Positive, Settings, fingerprint
from sgpo_core.config.catalog import require_preset
from sgpo_core.config.data import DataSettings, ModelSettings
from sgpo_core.config.loading import load_preset
from sgpo_core.config.training import ClusterSettings, DeepSpeedSettings, TrainSettings


class LessonSettings(Settings):
    """A part of the supervised training."""

    steps: Positive = Field(400, description="optimizer steps")
    slip_rate: Fraction = Field(0.6, description="chains: share of carries that the training traces forget")


class WarmStartConfig(Settings):
    """Everything that decides a supervised start: of the embedded policy on generated traces of `chains`, or of a real
    model on the worked solutions of a data set."""

    preset: str = Field("", description="the preset these settings came from")
    base: str | None = Field(None, description="warm start to go on from; null: model.path, or else random weights")
    seed: int = Field(0, ge=0, description="decides initial weights and what is trained on; apart from the runs' seeds")
    model: ModelSettings = ModelSettings(max_length=128)
    hidden_size: Positive = Field(128, description="random weights: width of the policy")
    layers: Positive = Field(2, description="random weights: transformer layers")
    heads: Positive = Field(
        4, description="random weights: attention heads; vLLM on the CPU needs hidden_size / heads = 32, 64, 96, ..."
    )
    intermediate_size: Positive = Field(256, description="random weights: width of the feed-forward layers")
    data: DataSettings = DataSettings(carry_rate=0.7)
    max_tokens: Positive = Field(
        96, description="length limit of a response, tokens; longer worked solutions are not trained on"
    )
    noise: Fraction = Field(0.01, description="chains: share of steps with a random sum")
    curriculum: list[LessonSettings] = Field(
        default_factory=lambda: [LessonSettings()], description="what is trained on, in order"
    )
    batch_size: Positive = Field(48, description="traces or worked solutions an optimizer step")
    answer_weight: float = Field(
        3.0, gt=0, description="chains: loss weight of the answer line, or the policy never learns to copy its digits"
    )
    train: TrainSettings = TrainSettings()
    gate_agreement: Fraction = Field(
        0.9, description="chains: share of samples whose answer line must follow from their own steps"
    )
    gate_form: Fraction = Field(
        0.8, description="worked solutions: share of responses to held-out problems that must pass the format gate"
    )
    gate_samples: Positive = Field(256, description="responses that the gate samples")
    gate_steps: Positive = Field(100, description="optimizer steps added while the gate is not passed")
    gate_rounds: int = Field(5, ge=0, description="how often steps are added before the warm start fails")
    cluster: Operational[ClusterSettings] = ClusterSettings()
    deepspeed: Operational[DeepSpeedSettings] = DeepSpeedSettings()

    @model_validator(mode="after")
    def _base_is_there(self) -> Self:
        if self.base is not None:
            require_preset("base", "warm_start", self.base)
        return self

    @property
    def key(self) -> str:
        """Name of the cached result. How the work is spread over actors is not part of it."""
        base = warm_start_key(self.base) if self.base else None
        return f"{self.preset}-{fingerprint([self.deciding(), base])}"


def load_warm_start(preset: str, overrides: Sequence[str] = ()) -> WarmStartConfig:
    """The settings of a warm start: conf/warm_start/<preset>.yaml and Hydra overrides."""
    return load_preset(WarmStartConfig, "warm_start", preset, overrides)


@cache
def warm_start_key(preset: str) -> str:
    """The key of a preset as it is in conf/, read once a process: every run that starts from it is named by it."""
    return load_warm_start(preset).key
