"""Settings of the flow `judge-eval`: which judge, on which solutions; see docs/judges.md."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from sgpo_core.config.base import Experiment, Operational, Settings, fingerprint
from sgpo_core.config.judge import JudgeSettings
from sgpo_core.config.loading import load_preset


class JudgeEvalDataSettings(Settings):
    path: str = Field(
        "chains",
        description="solutions with known first errors, in ProcessBench's format: a .jsonl, .json or .parquet file, a "
        "folder of them, Qwen/ProcessBench (or one subset: Qwen/ProcessBench/math), or chains (generated)",
    )
    max_bad_rows: Operational[int] = Field(
        0, ge=0, description="broken rows that are left out and named before the data is refused"
    )
    limit: int = Field(0, ge=0, description="at most so many solutions, the first ones of each subset; 0: all")


class JudgeEvalConfig(Settings):
    """Everything that decides an evaluation of a judge."""

    preset: str = Field("", description="the preset these settings came from")
    experiment: Operational[Experiment] = Field("judges", description="MLflow experiment, and folder of the results")
    judge: JudgeSettings = JudgeSettings()
    data: JudgeEvalDataSettings = JudgeEvalDataSettings()
    injections: bool = Field(
        True,
        description="also judge 60 responses that try to talk the judge into credit, each with an honest twin "
        "(docs/injections.md), and count those that gain",
    )

    @property
    def run_id(self) -> str:
        return f"{self.judge.name}-{fingerprint(self.deciding())}"


def load_judge_eval(preset: str, overrides: Sequence[str] = ()) -> JudgeEvalConfig:
    """The settings of an evaluation: conf/judge_eval/<preset>.yaml and Hydra overrides."""
    return load_preset(JudgeEvalConfig, "judge_eval", preset, overrides)
