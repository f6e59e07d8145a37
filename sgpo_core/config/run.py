"""The settings of a training run; `load_run("tiny", ["algorithm=grpo", "seed=1"])` gives those of an online one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from sgpo_core.config.algorithm import AlgorithmSettings
from sgpo_core.config.base import Experiment, Operational, Positive, Settings, fingerprint
from sgpo_core.config.catalog import require_preset
from sgpo_core.config.data import DataSettings, EvalSettings, ModelSettings, SamplingSettings
from sgpo_core.config.judge import JudgeSettings
from sgpo_core.config.judge_training import judge_key
from sgpo_core.config.loading import load_preset
from sgpo_core.config.training import CheckpointSettings, ClusterSettings, DeepSpeedSettings, TagSettings, TrainSettings
from sgpo_core.config.warm_start import warm_start_key


class TrainingConfig(Settings):
    """What decides a run that trains a policy by its credit, online or offline."""

    preset: str = Field("", description="the preset these settings came from")
    experiment: Operational[Experiment] = Field("sgpo", description="MLflow experiment, and folder of the runs")
    tags: TagSettings = TagSettings()
    seed: int = Field(0, ge=0, description="decides problem order and sampling")
    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    sampling: SamplingSettings = SamplingSettings()
    judge: JudgeSettings = JudgeSettings()
    algorithm: AlgorithmSettings = AlgorithmSettings()
    train: TrainSettings = TrainSettings()
    eval: EvalSettings = EvalSettings()
    checkpoint: Operational[CheckpointSettings] = CheckpointSettings()
    cluster: Operational[ClusterSettings] = ClusterSettings()
    deepspeed: Operational[DeepSpeedSettings] = DeepSpeedSettings()

    @model_validator(mode="after")
    def _warm_start_is_there(self) -> Self:
        if self.model.warm_start is not None:
            require_preset("model.warm_start", "warm_start", self.model.warm_start)
        return self

    @model_validator(mode="after")
    def _ranks_can_sleep(self) -> Self:
        if self.cluster.sleep and self.deepspeed.zero_stage == 3:
            raise ValueError(
                "cluster.sleep=true does not go with deepspeed.zero_stage=3, whose state DeepSpeed can move to host "
                "memory for its own compiled optimizer alone: set deepspeed=zero2 or cluster.sleep=false"
            )
        return self

    @property
    def asked_judge(self) -> JudgeSettings:
        """The judge; where credit asks about no response (GRPO), one that needs nothing."""
        return JudgeSettings() if self.algorithm.credit.scope == "none" else self.judge

    @cached_property
    def run_id(self) -> str:
        """Name of the run and its folder, computed once: the same deciding settings are the same run, so that the same
        command resumes it."""
        return f"{self.preset or 'custom'}-{self.algorithm.name}-s{self.seed}-{fingerprint(self._identity())}"

    def _identity(self) -> list[Any]:
        """All that decides the result: these settings, and what the presets that they name stand for."""
        start = warm_start_key(self.model.warm_start) if self.model.warm_start else None
        masked = ["mask-v2"] if self.algorithm.credit.mask_after_error else []  # which once meant something else
        return [self.deciding(), start, judge_key(self.judge), *masked]

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's, with a `run_id` of its own."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("run_id", None)
        return copied


class RunConfig(TrainingConfig):
    """Everything that decides an online run."""

    iterations: Operational[Positive] = Field(
        30, description="rounds of generate, judge, update; a higher number extends a run that is complete"
    )
    async_level: Literal[0, 1] = Field(
        0,
        description="0: generation and training take turns; 1: the next iteration's responses are generated while this "
        "one trains, by a policy that is one iteration older than the one they train",
    )
    offline_start: str | None = Field(
        None,
        description="preset in conf/offline that is trained first, with this run's model, algorithm, judge and seed "
        "(once, and kept); the run goes on from its policy, and its tokens count; null: none",
    )

    @model_validator(mode="after")
    def _can_generate_ahead(self) -> Self:
        if self.async_level == 0:
            return self
        if (strategy := self.algorithm.resampling.strategy) != "plain":
            raise ValueError(
                f"async_level=1 needs algorithm.resampling.strategy=plain: with {strategy} the grades of one iteration "
                "decide what is sampled next, and the next iteration's responses are sampled before these are known"
            )
        if self.cluster.colocated or self.cluster.sleep:
            raise ValueError(
                "async_level=1 needs cluster.colocated=false and cluster.sleep=false: an engine and a rank that share "
                "a GPU take turns"
            )
        return self


def load_run(preset: str, overrides: Sequence[str] = ()) -> RunConfig:
    """The settings of an online run: conf/online/<preset>.yaml and Hydra overrides."""
    return load_preset(RunConfig, "online", preset, overrides)
