"""Settings: every file in conf/ parses, wrong settings are named, and what decides a run decides its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from sgpo_core.config.base import ConfigError, Settings
from sgpo_core.config.catalog import CONF, catalog, describe, presets
from sgpo_core.config.data import BenchmarkSettings
from sgpo_core.config.judge_eval import load_judge_eval
from sgpo_core.config.judge_training import load_judge_training
from sgpo_core.config.loading import to_yaml
from sgpo_core.config.offline import load_offline
from sgpo_core.config.run import RunConfig, load_run
from sgpo_core.config.sweep import load_sweep
from sgpo_core.config.warm_start import LessonSettings, WarmStartConfig, load_warm_start

LOADERS: dict[str, Callable[..., Settings]] = {
    "online": load_run,
    "offline": load_offline,
    "warm_start": load_warm_start,
    "sweep": load_sweep,
    "judge_training": load_judge_training,
    "judge_eval": load_judge_eval,
}
OPTIONS = sorted(
    f"{folder.name}={name}"
    for folder in CONF.iterdir()
    if folder.is_dir() and folder.name not in LOADERS and folder.name in RunConfig.model_fields
    for name in presets(folder.name)
)


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from flat(inner, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, value


def difference(a: Settings, b: Settings) -> set[str]:
    left, right = (dict(flat(s.model_dump(mode="json"))) for s in (a, b))
    return {key for key in left.keys() | right.keys() if left.get(key, "-") != right.get(key, "-")}


@pytest.mark.parametrize("preset", presets("online"))
def test_every_online_preset_parses(preset: str) -> None:
    config = load_run(preset)
    assert config.preset == preset
    assert config.eval.sets
    assert (config.model.path is None) != (config.model.warm_start is None)
    assert RunConfig.model_validate(yaml.safe_load(to_yaml(config))) == config


@pytest.mark.parametrize("preset", presets("warm_start"))
def test_every_warm_start_parses(preset: str) -> None:
    config = load_warm_start(preset)
    assert config.preset == preset
    assert config.base in {None, *presets("warm_start")}
    assert (config.hidden_size // config.heads) % 32 == 0
    assert WarmStartConfig.model_validate(yaml.safe_load(to_yaml(config))) == config


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes_into_tiny(option: str) -> None:
    group = option.partition("=")[0]
    changed = difference(load_run("tiny"), load_run("tiny", [option]))
    assert all(key.startswith(f"{group}.") for key in changed)


@pytest.mark.parametrize(
    ("flow", "preset"),
    [("online", "7b"), ("offline", "7b"), *((f, p) for f in ("warm_start", "judge_training") for p in presets(f))],
)
def test_a_file_of_every_group_can_be_chosen(flow: str, preset: str) -> None:
    """Whether the preset itself chooses one or not: nothing needs Hydra's plus."""
    groups = catalog(type(LOADERS[flow](preset))).groups
    assert groups >= {"cluster", "data", "deepspeed"}
    refused = {group: refusal(LOADERS[flow], preset, f"{group}={presets(group)[-1]}") for group in groups}
    assert [group for group, why in refused.items() if "is for this flow" in why] == []


def refusal(load: Callable[..., Settings], preset: str, override: str) -> str:
    """Empty if it is not refused."""
    try:
        load(preset, [override])
    except ConfigError as error:
        return str(error)
    return ""


def test_a_group_whose_files_are_for_other_flows() -> None:
    for override in ("data=gsm8k", "~data"):
        assert refusal(load_judge_eval, "default", override).endswith(
            "no file of conf/data is for this flow: set data.path, data.max_bad_rows, data.limit"
        )


def test_there_are_options_in_every_group() -> None:
    groups = {option.partition("=")[0] for option in OPTIONS}
    assert groups >= {"algorithm", "cluster", "data", "deepspeed", "eval", "judge", "model"}
    assert {"algorithm=grpo", "algorithm=sgpo"} <= set(OPTIONS)


@pytest.mark.parametrize("preset", presets("online"))
def test_grpo_and_sgpo_differ_under_algorithm_alone(preset: str) -> None:
    grpo, sgpo = (load_run(preset, [f"algorithm={name}"]) for name in ("grpo", "sgpo"))
    assert difference(grpo, sgpo) == {"algorithm.name", "algorithm.credit.scope"}
    assert (grpo.algorithm.credit.scope, sgpo.algorithm.credit.scope) == ("none", "all_negative")


@pytest.mark.parametrize("preset", presets("online"))
def test_a_response_fits_beside_its_prompt(preset: str) -> None:
    config = load_run(preset)
    assert config.sampling.max_tokens < config.model.max_length
    assert config.train.micro_batch_tokens >= config.model.max_length


def test_defaults_of_the_algorithm() -> None:
    settings = load_run("tiny").algorithm
    assert dict(settings.credit) == {
        "scope": "all_negative",
        "beta": 10.0,
        "gamma": 0.5,
        "rts_unit": "steps",
        "expected_length": "reference",
        "max_length_ratio": 2.0,
        "truncated": "nothing",
        "format_gate": True,
        "no_error_found": "abstain",
        "mask_after_error": False,
        "overlong_buffer": 0.0,
        "overlong_penalty": 0.5,
        "unlikeliness": 0.0,
        "domain_weight": False,
        "difficulty_weight": False,
    }
    assert (settings.advantage.std, settings.advantage.eps) == ("group", 1e-6)
    assert (settings.loss.clip_low, settings.loss.clip_high, settings.loss.kl_coef) == (0.2, 0.2, 0.0)


def test_overrides() -> None:
    config = load_run("tiny", ["algorithm=grpo", "algorithm.credit.beta=5", "seed=3", "train.betas=[0.8,0.9]"])
    assert config.algorithm.name == "grpo"
    assert config.algorithm.credit.beta == 5.0
    assert config.seed == 3
    assert config.train.betas == (0.8, 0.9)
    assert load_run("tiny").seed == 0  # nothing stays behind


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("algorithm.credit.bta=5", ["algorithm.credit.bta", "mean algorithm.credit.beta?"]),
        ("+algorithm.credit.bta=5", ["algorithm.credit.bta", "mean algorithm.credit.beta?"]),
        ("+algoritm.name=x", ["algoritm"]),
        ("sampling.groupsize=4", ["sampling.groupsize", "mean sampling.group_size?"]),
        ("bta=3", ["'bta'"]),
        ("algorithm=gpro", ["algorithm", "gpro"]),
        ("model=nope", ["model", "nope"]),
        ("algorithm.credit.beta=steep", ["algorithm.credit.beta", "steep", "steepness of the logistic"]),
        ("algorithm.credit.beta=0", ["algorithm.credit.beta", "greater than 0"]),
        ("algorithm.credit.gamma=1.5", ["algorithm.credit.gamma", "1.5"]),
        ("algorithm.credit.scope=all", ["algorithm.credit.scope", "'all'", "all_negative", "all_incorrect"]),
        ("algorithm.advantage.std=all", ["algorithm.advantage.std", "group", "floor", "batch", "none"]),
        ("algorithm.loss.clip_low=1", ["algorithm.loss.clip_low", "less than 1"]),
        ("sampling.group_size=1", ["sampling.group_size", "responses to each problem"]),
        ("sampling.temperature=0", ["sampling.temperature"]),
        ("eval.sets.chains.k=0", ["eval.sets.chains.k"]),
        ("train.lr=inf", ["train.lr", "finite"]),
        ("algorithm.credit.beta=nan", ["algorithm.credit.beta"]),
        ("train.betas=[0.9,2]", ["train.betas.1", "less than 1"]),
        ('experiment="x\'y"', ["experiment"]),
        ("experiment=../x", ["experiment"]),
        ("experiment=/tmp/x", ["experiment"]),
        ("experiment=.x", ["experiment"]),
        ("experiment=prefect", ["experiment", "another folder in SGPO_HOME"]),
        ("algorithm.name=../../x", ["algorithm.name"]),
        ('tags.sweep="x\'y"', ["tags.sweep"]),
        ("seed=-1", ["seed"]),
        ("seed=1.5", ["seed", "1.5"]),
        ("iterations=null", ["iterations"]),
        ("seed", ["seed"]),
        ("seed=${nowhere}", ["nowhere"]),
        ("async_level=2", ["async_level", "0 or 1"]),
        # what Hydra trips over itself
        ("algorithm=1", ["algorithm=1"]),
        (f"seed={'9' * 5000}", ["seed=9"]),
        ("~train.betas.0", ["train.betas.0"]),
    ],
)
def test_a_wrong_setting_is_named(override: str, named: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        load_run("tiny", [override])
    assert [part for part in named if part not in str(refused.value)] == []


@pytest.mark.parametrize(
    ("preset", "override", "named"),
    [
        ("tiny", "algorithm=dapo", ["algorithm.resampling.strategy=plain", "dynamic"]),
        ("tiny", "algorithm=srpo", ["algorithm.resampling.strategy=plain", "history"]),
        ("0.5b", "seed=1", ["cluster.colocated=false"]),
        ("tiny", "cluster.sleep=true", ["cluster.sleep=false"]),
    ],
)
def test_what_can_not_be_generated_ahead_is_refused(preset: str, override: str, named: list[str]) -> None:
    load_run(preset, [override])
    with pytest.raises(ConfigError) as refused:
        load_run(preset, [override, "async_level=1"])
    assert [part for part in named if part not in str(refused.value)] == []


@pytest.mark.parametrize(
    ("preset", "overrides", "named"),
    [
        ("7b", [], ["cluster.colocated=true"]),
        ("0.5b", ["deepspeed=zero3"], ["deepspeed=zero2"]),
        ("tiny", ["cluster.sync_by=broadcast"], ["cluster.sync_by=file"]),
    ],
)
def test_engines_and_ranks_that_can_not_sleep_in_turns_are_refused(
    preset: str, overrides: list[str], named: list[str]
) -> None:
    load_run(preset, overrides)
    with pytest.raises(ConfigError) as refused:
        load_run(preset, [*overrides, "cluster.sleep=true"])
    assert [part for part in named if part not in str(refused.value)] == []


def test_a_long_value_is_shown_in_part() -> None:
    with pytest.raises(ConfigError, match=r"^sampling\.group_size='xx") as refused:
        load_run("tiny", [f"sampling.group_size={'x' * 10_000}"])
    assert len(str(refused.value)) < 500


def test_several_wrong_settings_are_all_named() -> None:
    with pytest.raises(ConfigError, match=r"algorithm\.credit\.beta.*train\.lr"):
        load_run("tiny", ["train.lr=-1", "algorithm.credit.beta=-1"])


@pytest.mark.parametrize("group", LOADERS)
@pytest.mark.parametrize("preset", ["nope", "", "../online/tiny", "tiny.yaml"])
def test_an_unknown_preset_is_named_with_the_known_ones(group: str, preset: str) -> None:
    with pytest.raises(ConfigError) as refused:
        LOADERS[group](preset)
    said = str(refused.value)
    assert said.startswith(f"preset={preset}: ") and said.endswith(f"(conf/{group} has {', '.join(presets(group))})")


def test_settings_are_frozen() -> None:
    config = load_run("tiny")
    for settings, name in ((config, "seed"), (config.algorithm.credit, "beta"), (config.train, "lr")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(settings, name, 1)


def test_run_id_is_decided_by_the_settings() -> None:
    spelled_out = ([], ["seed=0"], ["algorithm=sgpo", "algorithm.credit.beta=10"])
    same = [load_run("tiny", overrides) for overrides in spelled_out]
    assert len({c.run_id for c in same}) == 1
    assert same[0].run_id.startswith("tiny-sgpo-s0-")
    others = ["seed=1", "algorithm=grpo", "algorithm.credit.beta=9", "model=tiny_mild", "tags.sweep=a"]
    assert len({load_run("tiny", overrides).run_id for overrides in [[], *([o] for o in others)]}) == 1 + len(others)
    assert load_run("tiny", ["seed=1"]).run_id.startswith("tiny-sgpo-s1-")


def test_the_key_of_a_warm_start_leaves_the_machines_out() -> None:
    def key(*overrides: str) -> str:
        return load_warm_start("tiny", overrides).key

    assert key() == key("cluster.rollout_actors=1", "deepspeed.zero_stage=1")
    assert len({key(), key("seed=1"), key("noise=0.02"), key("train.lr=1e-4")}) == 4


@pytest.mark.parametrize("model", [RunConfig, WarmStartConfig])
def test_every_setting_has_an_explanation(model: type[Settings]) -> None:
    described = list(describe(model))
    assert [setting.key for setting in described if len(setting.text) < 5] == []
    assert len({setting.key for setting in described}) == len(described)
    defaults = dict(flat(model().model_dump()))
    assert {setting.key for setting in described} >= {key for key in defaults if "sets" not in key}


@pytest.mark.parametrize("model", [BenchmarkSettings, LessonSettings])
def test_settings_within_lists_have_explanations_too(model: type[Settings]) -> None:
    assert [setting.key for setting in describe(model) if not setting.text] == []


def test_settings_below_a_mapping_need_no_plus() -> None:
    overrides = ["eval.sets.chains.top_p=0.5", "eval.sets.chains.data.max_bad_rows=3", "judge.endpoint.extra_body.k=20"]
    config = load_run("tiny", overrides)
    assert (config.eval.sets["chains"].top_p, config.eval.sets["chains"].data.max_bad_rows) == (0.5, 3)
    assert config.judge.endpoint.extra_body == {"k": 20}
    assert load_run("tiny", ["eval=gsm8k", "eval.sets.gsm8k.data.count=5"]).eval.sets["gsm8k"].data.count == 5
    with pytest.raises(ConfigError, match=r"eval\.sets\.chain: did you mean chains\? \(eval\.sets has chains\)"):
        load_run("tiny", ["eval.sets.chain.k=3"])
    with pytest.raises(ConfigError, match=r"eval\.sets\.chains: there is none of that name"):
        load_run("tiny", ["~eval.sets", "eval.sets.chains.seed=1"])


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r'"\n\nThink."', "\n\nThink."),
        ('"\n\nThink."', "\n\nThink."),  # line breaks themselves
        (r'"a\tb\r\\boxed{\"c\"}\\"', 'a\tb\r\\boxed{"c"}\\'),
        (r'"\boxed{} \alpha"', r"\boxed{} \alpha"),  # no escapes
        (r"'a\nb \"c\"'", r"a\nb \"c\""),
        (r'"\${preset} \\\${preset}"', r"${preset} \${preset}"),
        ("word", "word"),
    ],
)
def test_escapes_in_double_quotes_mean_what_they_say(written: str, meant: str) -> None:
    assert load_run("tiny", [f"model.instruction={written}"]).model.instruction == meant


def test_a_line_break_that_is_none() -> None:
    with pytest.raises(ConfigError, match=r"model\.instruction.*backslash and an n"):
        load_run("tiny", [r"model.instruction='\n\nThink.'"])


@pytest.mark.parametrize("preset", [preset for preset in presets("online") if preset.startswith("r1-")])
def test_the_steps_of_a_thinking_section_are_not_measured_by_a_worked_solution(preset: str) -> None:
    assert load_run(preset).algorithm.credit.expected_length == "group"
    assert load_offline(preset).algorithm.credit.expected_length == "group"


def test_where_credit_asks_about_no_response_the_judge_is_one_that_needs_nothing() -> None:
    sgpo, grpo = load_run("7b"), load_run("7b", ["algorithm=grpo"])
    assert sgpo.asked_judge == sgpo.judge and sgpo.judge.name == "llm"
    assert grpo.judge == sgpo.judge and grpo.asked_judge.name == "rule"


def test_thinking_is_switched_in_a_chat_template_alone() -> None:
    assert load_run("7b", ["model.thinks=false"]).model.thinks is False
    with pytest.raises(ConfigError, match=r"model\.thinks"):
        load_run("tiny", ["model.thinks=false"])
