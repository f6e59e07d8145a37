"""Settings of the flow `judge-training`; see docs/judges.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from sgpo_core.config.base import Fraction, Operational, Positive, Settings, fingerprint
from sgpo_core.config.catalog import presets
from sgpo_core.config.judge import JudgeSettings
from sgpo_core.config.loading import load_preset
from sgpo_core.config.training import ClusterSettings, DeepSpeedSettings, TrainSettings
from sgpo_core.config.warm_start import warm_start_key


class CorruptionSettings(Settings):
    """How training solutions of `chains` are spoilt. The four kinds of error are weights among those with one; edits to
    the form come on top, and several may meet."""

    right: Fraction = Field(0.2, description="share of solutions without an error")
    slip_rate: Fraction = Field(0.9, description="after the first error, carries are forgotten at a rate of up to this")
    forgotten_carry: float = Field(6.0, ge=0, description="weight of errors that forget a carry")
    wrong_sum: float = Field(2.0, ge=0, description="weight of errors in a sum")
    misread_digit: float = Field(1.0, ge=0, description="weight of digits that are not the problem's")
    wrong_answer: float = Field(1.0, ge=0, description="weight of answers that the steps do not give")
    misplaced_line: Fraction = Field(0.05, description="share of solutions with a step left out or written twice")
    cut_off: Fraction = Field(0.1, description="share of solutions whose end is cut off")
    garbage_line: Fraction = Field(
        0.1, description="share of solutions with a line that is no step: noise, or a claim that all is right"
    )


class JudgeDataSettings(Settings):
    rollouts: list[str] = Field(
        default_factory=list,
        description="rollouts.parquet files with verdicts of another judge, to distil it; empty: `chains`, corrupted",
    )
    max_bad_rows: Operational[int] = Field(0, ge=0, description="rollouts: broken rows that are left out and named")
    held_out: Fraction = Field(0.1, description="rollouts: share of the problems that the judge is tested on")
    columns: int = Field(6, ge=1, le=12, description="chains: digits of each number")
    carry_rate: Fraction = Field(0.9, description="chains: share of columns whose digits sum to 10 or more")
    corruption: CorruptionSettings = CorruptionSettings()


class JudgeTrainingConfig(Settings):
    """Everything that decides a trained judge."""

    preset: str = Field("", description="the preset these settings came from")
    base: str = Field("tiny", description="what to start from: a preset in conf/warm_start, a folder, or a hub id")
    policy: str = Field(
        "tiny",
        description="chains: whose responses it is tested on: the policy's preset in conf/warm_start, or its folder",
    )
    seed: int = Field(0, ge=0, description="decides new embeddings and the examples; apart from the runs' seeds")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="dtype of the judge's weights")
    reference: bool = Field(
        False, description="show the reference solution, where there is one; runs set judge.reference to the same"
    )
    max_length: Positive = Field(256, description="prompt and verdict together, tokens; longer examples are left out")
    data: JudgeDataSettings = JudgeDataSettings()
    steps: Positive = Field(500, description="optimizer steps")
    batch_size: Positive = Field(16, description="responses an optimizer step")
    running_weight: float = Field(
        10.0,
        ge=0,
        description="loss weight of the running verdict, which the judge also predicts after every token of the "
        "response, relative to the final verdict; 0: it does not predict one",
    )
    train: TrainSettings = TrainSettings()
    gate_accuracy: Fraction = Field(0.93, description="share of test responses that must get exactly the right verdict")
    gate_samples: Positive = Field(512, description="responses that it is tested on, at most")
    gate_steps: Positive = Field(100, description="optimizer steps added while the gate is not passed")
    gate_rounds: int = Field(3, ge=0, description="how often steps are added before the training fails")
    cluster: Operational[ClusterSettings] = ClusterSettings()
    deepspeed: Operational[DeepSpeedSettings] = DeepSpeedSettings()

    @property
    def key(self) -> str:
        """Name of the cached result. How the work is spread over actors is not part of it."""
        origins = [warm_start_key(name) if is_warm_start(name) else name for name in (self.base, self.policy)]
        return f"{self.preset}-{fingerprint([self.deciding(), origins])}"


def is_warm_start(name: str) -> bool:
    """Whether a model is named by its preset in conf/warm_start, and not by a folder or hub id."""
    return name in presets("warm_start")


def load_judge_training(preset: str, overrides: Sequence[str] = ()) -> JudgeTrainingConfig:
    """The settings of a judge's training: conf/judge_training/<preset>.yaml and Hydra overrides."""
    return load_preset(JudgeTrainingConfig, "judge_training", preset, overrides)


def judge_key(judge: JudgeSettings) -> str | None:
    """What a run's name has to hold of a judge whose model is named by its preset in conf/judge_training; None for
    other judges."""
    return load_judge_training(judge.model).key if is_preset(judge.model) else None


def is_preset(model: str) -> bool:
    """Whether a judge's model is named by its preset in conf/judge_training, and not by a folder."""
    return model in presets("judge_training")
