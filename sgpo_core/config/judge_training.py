"""Settings of the flow `judge-training`; see docs/judges.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from sgpo_core.config.base import Fraction, Operational, Positive, Settings, fingerprint
from sgpo_core.config.catalog import presets
from sgpo_core.config.data import DataSettings
from sgpo_core.config.judge import JudgeSettings
from sgpo_core.config.loading import load_preset
from sgpo_core.config.training import ClusterSettings, DeepSpeedSettings, TrainSettings
from sgpo_core.config.warm_start import warm_start_key


class CorruptionSettings(Settings):
    """How training solutions are spoilt. The kinds of error are weights among the solutions with one; on `chains` edits
    to the form come on top, and several may meet."""

    right: Fraction = Field(0.2, description="share of solutions without an error")
    slip_rate: Fraction = Field(
        0.9, description="chains: after the first error, carries are forgotten at a rate of up to this"
    )
    forgotten_carry: float = Field(6.0, ge=0, description="chains: weight of errors that forget a carry")
    wrong_sum: float = Field(2.0, ge=0, description="chains: weight of errors in a sum")
    misread_digit: float = Field(1.0, ge=0, description="chains: weight of digits that are not the problem's")
    wrong_answer: float = Field(1.0, ge=0, description="weight of answers that the steps do not give")
    wrong_result: float = Field(4.0, ge=0, description="worked solutions: weight of errors in a result")
    wrong_operand: float = Field(
        3.0, ge=0, description="worked solutions: weight of numbers that do not belong into a calculation"
    )
    wrong_operation: float = Field(
        2.0, ge=0, description="worked solutions: weight of + for -, * for /, and the other way round"
    )
    foreign_step: float = Field(1.0, ge=0, description="worked solutions: weight of steps of another problem")
    stops_early: float = Field(
        2.0, ge=0, description="worked solutions: weight of answers that are a number on the way to it"
    )
    misplaced_line: Fraction = Field(
        0.05, description="chains: share of solutions with a step left out or written twice"
    )
    cut_off: Fraction = Field(0.1, description="chains: share of solutions whose end is cut off")
    garbage_line: Fraction = Field(
        0.1, description="chains: share of solutions with a line that is no step: noise, or a claim that all is right"
    )


class JudgeDataSettings(DataSettings):
    """Of a data set the worked solutions are used, which need calculator marks, as those of GSM8K have."""

    rollouts: list[str] = Field(
        default_factory=list,
        description="rollouts.parquet files with verdicts of another judge, to distil it, in place of data.source; "
        "empty: solutions of data.source, corrupted",
    )
    held_out: Fraction = Field(
        0.1, description="rollouts, worked solutions: share of the problems that the judge is tested on"
    )
    corruption: CorruptionSettings = CorruptionSettings()

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.rollouts and self.source != "chains":
            raise ValueError(
                f"data.rollouts and data.source={self.source} are both set: the judge learns from one of them"
            )
        return self


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
