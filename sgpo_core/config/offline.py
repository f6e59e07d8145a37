"""Settings of offline training: which responses, which of them teach, how often they are seen.

`load_offline("tiny", ["algorithm=grpo"])` gives a frozen, validated `OfflineConfig`. It is an online run's settings
without `iterations`: an iteration trains on `sampling.problems` groups of the data set, and there are as many as
`epochs` passes take.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from sgpo_core.config.base import ConfigError, Operational, Positive, Settings
from sgpo_core.config.catalog import require_preset
from sgpo_core.config.data import AnswerForm
from sgpo_core.config.loading import load_preset
from sgpo_core.config.run import RunConfig, TrainingConfig

GroupChoice = Literal["all", "positive", "negative", "mixed"]
SAMPLED = "sample"  # responses.source: no import, the initial policy writes them


class ColumnSettings(Settings):
    """Where a data set holds what; the defaults are the names in our own rollouts.parquet."""

    id: str | None = Field("id", description="column of a response's own id, which must not come twice; null: none")
    problem_id: str | None = Field(
        "problem_id", description="column of the problem's id, by which responses are grouped; null: by the prompt"
    )
    prompt: str = Field("prompt", description="column of the problem as the policy reads it")
    answer: str = Field("answer", description="column of the right final answer")
    reference: str | None = Field("reference", description="column of a worked solution; null: ignored")
    domain: str | None = Field("domain", description="column of the problem's domain; null: ignored")
    response: str = Field("response", description="column of the response's text")
    truncated: str | None = Field(
        "truncated", description="column that is true where the response was cut at a length limit; null: none was"
    )
    token_ids: str | None = Field(
        "token_ids", description="column of the response's token ids; null: the text is tokenized"
    )
    logprobs: str | None = Field(
        "rollout_logprobs",
        description="column of the log-probabilities (nats) that the tokens were sampled with; null, or where they are "
        "missing: those of the initial policy",
    )
    grade: str | None = Field(
        "grade",
        description="column of the grade: correct, wrong, unparsable, ..., or true/false, or 1/0; null, or where it is "
        "missing: graded here",
    )
    first_error_step: str | None = Field(
        "first_error_step", description="column of the first wrong step, 1-based, empty where none was found"
    )
    verdict_status: str | None = Field(
        "verdict_status",
        description="column that says ok or abstained where a verdict is known; null, or where it is missing: judged "
        "here, but for responses with a first wrong step",
    )


class ResponsesSettings(Settings):
    source: str = Field(
        SAMPLED,
        description="sample (the initial policy writes sampling.group_size responses to every problem of data), or "
        "what there is: a .jsonl or .parquet file, a folder of them, a run's folder, a saved data set's folder, or a "
        "Hugging Face data set id",
    )
    split: str = Field("train", description="split of a Hugging Face data set")
    revision: str | None = Field(None, description="revision of a Hugging Face data set; pin it, or updates go unseen")
    max_bad_rows: Operational[int] = Field(
        0, ge=0, description="broken rows that are skipped (and named) before the data set is refused"
    )
    seed: int = Field(
        0, ge=0, description="seed of sampling; not the seed of a run, because many runs share a data set"
    )
    answer_form: AnswerForm = Field(
        "boxed", description="how recorded responses give their final answer; those that are sampled: data.answer_form"
    )
    columns: ColumnSettings = ColumnSettings()


class OfflineConfig(TrainingConfig):
    """Everything that decides an offline run."""

    responses: ResponsesSettings = ResponsesSettings()
    groups: GroupChoice = Field(
        "all",
        description="which groups are trained on: all, positive (with a correct response), negative (without one), "
        "mixed (with correct and wrong ones)",
    )
    epochs: Positive = Field(1, description="passes over the data set, each in an order of its own, by seed")

    @model_validator(mode="after")
    def _is_offline(self) -> Self:
        strategy = self.algorithm.resampling.strategy
        if strategy != "plain":
            raise ValueError(
                f"algorithm.resampling.strategy={strategy} decides by what was sampled what to sample next, and "
                f"offline nothing is sampled: {self.algorithm.name} is an online algorithm. Use the flow sgpo-online, "
                "or algorithm=grpo, sgpo, sgpo-masked, raft, reinforce-rej, dr-grpo, ..."
            )
        if self.groups == "negative" and self.algorithm.filter != "none":
            raise ValueError(
                f"groups=negative trains on groups without a correct response, and algorithm.filter="
                f"{self.algorithm.filter} ({self.algorithm.name}) leaves all of these out: nothing would be left"
            )
        return self


def load_offline(preset: str, overrides: Sequence[str] = ()) -> OfflineConfig:
    """The settings of an offline run: conf/offline/<preset>.yaml and Hydra overrides."""
    return load_preset(OfflineConfig, "offline", preset, overrides)


def read_settings(file: Path) -> RunConfig | OfflineConfig:
    """The settings that a run has written, resolved (config.yaml). Raises ConfigError that names what can't be read."""
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    try:
        return (OfflineConfig if "responses" in values else RunConfig).model_validate(values)
    except ValidationError as error:
        key = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise ConfigError(f"{file} can't be read, an earlier version may have written it: look at {key}") from None


def offline_first(online: RunConfig) -> OfflineConfig | None:
    """The offline run that an online one begins with (`offline_start`): that preset, with what the two must share
    taken from the online run. Raises ConfigError where there is no such preset, or the algorithm is none for it."""
    if online.offline_start is None:
        return None
    require_preset("offline_start", "offline", online.offline_start)
    shared = ("seed", "model", "judge", "algorithm", "cluster", "deepspeed")
    values = load_offline(online.offline_start).model_dump()
    try:
        return OfflineConfig.model_validate(values | {name: online.model_dump()[name] for name in shared})
    except ValidationError as error:
        reasons = "; ".join(e["msg"].removeprefix("Value error, ") for e in error.errors())
        raise ConfigError(f"offline_start={online.offline_start}: {reasons}") from None
