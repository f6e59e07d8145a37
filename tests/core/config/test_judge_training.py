"""Settings of a judge's training."""

from __future__ import annotations

import pytest

from sgpo_core.config.base import ConfigError
from sgpo_core.config.judge_training import JudgeTrainingConfig, load_judge_training


def test_the_preset_parses_and_its_key_leaves_the_machines_out() -> None:
    def key(*overrides: str) -> str:
        return load_judge_training("tiny", overrides).key

    config = load_judge_training("tiny")
    assert JudgeTrainingConfig.model_validate(config.model_dump(mode="json")) == config
    assert config.gate_accuracy >= 0.93
    assert key() == key("cluster.trainer_ranks=2", "deepspeed.zero_stage=2")
    assert len({key(), key("seed=1"), key("base=tiny_mild"), key("data.corruption.right=0.3")}) == 4
    with pytest.raises(ConfigError, match="gate_accuracy"):
        key("gate_acuracy=0.9")
