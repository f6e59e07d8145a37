"""Settings of offline training: presets parse, and what can't be done offline is refused with the reason."""

from __future__ import annotations

import pytest
import yaml

from sgpo_core.config.base import ConfigError
from sgpo_core.config.catalog import presets
from sgpo_core.config.loading import to_yaml
from sgpo_core.config.offline import OfflineConfig, load_offline
from sgpo_core.config.run import load_run

ONLINE = {"dapo", "srpo"}


@pytest.mark.parametrize("preset", presets("offline"))
def test_every_preset_parses(preset: str) -> None:
    config = load_offline(preset)
    assert config.preset == preset and config.eval.sets
    assert config.sampling.max_tokens < config.model.max_length <= config.train.micro_batch_tokens
    assert OfflineConfig.model_validate(yaml.safe_load(to_yaml(config))) == config


def test_there_is_a_preset_for_every_size() -> None:
    assert (
        set(presets("offline")) == set(presets("online")) >= {"tiny", "smol", "7b", "14b", "32b", "0.5b", "r1-qwen-7b"}
    )


@pytest.mark.parametrize("preset", presets("offline"))
def test_a_preset_trains_the_model_of_the_online_one(preset: str) -> None:
    offline, online = load_offline(preset), load_run(preset)
    assert (offline.model, offline.cluster, offline.deepspeed) == (online.model, online.cluster, online.deepspeed)


@pytest.mark.parametrize("algorithm", sorted(ONLINE))
def test_what_needs_fresh_samples_is_refused_with_the_reason(algorithm: str) -> None:
    with pytest.raises(ConfigError, match=f"decides by what was sampled.*{algorithm} is an online algorithm"):
        load_offline("tiny", [f"algorithm={algorithm}"])


@pytest.mark.parametrize("algorithm", sorted({*presets("algorithm")} - ONLINE))
def test_every_other_algorithm_trains_offline(algorithm: str) -> None:
    assert load_offline("tiny", [f"algorithm={algorithm}"]).algorithm.name == algorithm


@pytest.mark.parametrize("algorithm", ["raft", "reinforce-rej"])
def test_negative_groups_alone_and_a_filter_that_drops_them(algorithm: str) -> None:
    with pytest.raises(ConfigError, match="groups=negative trains on groups without a correct response"):
        load_offline("tiny", [f"algorithm={algorithm}", "groups=negative"])


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ConfigError, match=r"responses\.columns\.respons.*did you mean|Did you mean responses\.columns"):
        load_offline("tiny", ["responses.columns.respons=x"])
    with pytest.raises(ConfigError, match="groups='some'"):
        load_offline("tiny", ["groups=some"])


def test_seed_epochs_and_groups_make_other_runs() -> None:
    ids = {load_offline("tiny", [o]).run_id for o in ("seed=0", "seed=1", "epochs=2", "groups=mixed")}
    assert len(ids) == 4
