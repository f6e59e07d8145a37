"""Overrides and values, whatever they are: settings that say what was set, or an error that names the setting."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from pydantic import Field, ValidationError

from sgpo_core.config import catalog as known
from sgpo_core.config import loading
from sgpo_core.config import overrides as overrides_module
from sgpo_core.config.base import ConfigError, Fraction, Name, Positive, Settings
from sgpo_core.config.catalog import catalog, describe
from sgpo_core.config.evaluation import EvaluationConfig
from sgpo_core.config.judge_eval import JudgeEvalConfig
from sgpo_core.config.judge_training import JudgeTrainingConfig
from sgpo_core.config.loading import load_preset, to_yaml
from sgpo_core.config.offline import OfflineConfig
from sgpo_core.config.run import RunConfig
from sgpo_core.config.sweep import SweepConfig, _hydra
from sgpo_core.config.warm_start import WarmStartConfig
from tests.fuzz.hostile import answers, any_text, encodable, texts, values

FLOWS = (RunConfig, OfflineConfig, WarmStartConfig, JudgeTrainingConfig, JudgeEvalConfig, EvaluationConfig, SweepConfig)


class Part(Settings):
    rate: float = Field(0.1, gt=0, description="above 0")
    kind: Literal["a", "b"] = Field("a", description="a or b")


class Whole(Settings):
    """Every kind of setting that there is; its presets are loaded in a tenth of the time that a run's take."""

    preset: str = Field("", description="its preset")
    name: Name = Field("x", description="a name")
    share: Fraction = Field(0.5, description="a share")
    count: Positive = Field(1, description="a number")
    text: str = Field("", description="a text")
    maybe: str | None = Field(None, description="a text, or none")
    many: list[str] = Field(default_factory=list, description="several texts")
    pair: tuple[float, float] = Field((0.1, 0.2), description="two numbers")
    body: dict[str, Any] = Field({}, description="anything")
    part: Part = Part()
    parts: dict[str, Part] = Field(default_factory=dict, description="parts by name")


@pytest.fixture(scope="module")
def conf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("conf")
    for file, content in {
        "whole/some.yaml": "# @package _global_\ndefaults:\n  - /whole_defaults\n  - /part: one\n  - _self_\n"
        "parts:\n  p: {rate: 0.5, kind: a}\n",
        "part/one.yaml": "rate: 0.25\n",
        "part/two.yaml": "kind: b\n",
    }.items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(content)
    with pytest.MonkeyPatch.context() as patch:
        for module in (loading, known, overrides_module):
            patch.setattr(module, "CONF", folder)
        catalog.cache_clear()
        yield folder
    catalog.cache_clear()


_known = ["part", "part.rate", "part.kind", "name", "share", "count", "text", "maybe", "many", "pair", "body", "preset"]
_known += ["body.x", "body.x.y", "parts", "parts.p", "parts.p.rate", "parts.q", "parts.q.rate"]
_others = ["part@part", "pair.0", "many.0", "nope", "part.nope", "text.x", "hydra", "hydra.run.dir", "defaults"]
_others += ["_target_", "parts.p.r e", "parts.p.rate.x", "", " ", "part/", "part@", "a:b"]
_keys = st.one_of(st.sampled_from(_known), st.sampled_from(_known), st.sampled_from(_others), any_text)
_plain = ["1", "0", "-1", "0.5", "a", "b", "one", "two", "null", "true", "nan", "inf", "-inf", "1e999", "0x10", "1_000"]
_plain += ["[]", "[1,2]", "{}", "{a:1}", "{rate:1}", "'x'", '"x"', "", "a,b", "1,2", "[", "{", "'", '"', "\\", "@", "?"]
_hydras = ["${name}", "${nope}", "${part}", "${text}", "${parts.p.rate}", "${..x}", "${", "}", "???", "${oc.env:NOPE}"]
_hydras += ["${oc.create:[1]}", "choice(1,2)", "range(3)", "glob(*)", "int(x)", "extend_list(1)", "../one", "one@x"]
_values = st.one_of(
    st.sampled_from(_plain),
    st.sampled_from(_plain + _hydras),
    st.sampled_from(["9" * 5000, "[" * 500, "one" * 500]),
    values.map(json.dumps),
    any_text,
)
_signs = st.sampled_from(["", "", "", "", "+", "++", "~"])
_overrides = st.one_of(
    *[st.builds(lambda sign, key, value: f"{sign}{key}={value}", _signs, _keys, _values)] * 4,
    st.builds(lambda sign, key: f"{sign}{key}", _signs, _keys),
    any_text,
    texts,
)


@given(st.lists(_overrides, min_size=1, max_size=3))
@example(overrides=["parts.q.rate=1"])
def test_overrides(conf: Path, overrides: list[str]) -> None:
    """An override that is none is an error that shows it, its setting, or the name in it that is not there."""
    try:
        settings = load_preset(Whole, "whole", "some", overrides)
    except ConfigError as error:
        named = [override.partition("=")[0].lstrip("+~") for override in overrides]
        named += [key.removesuffix(".rate") for key in named if key.startswith("parts.")]
        assert any(key in str(error) or repr(key)[1:-1] in str(error) for key in named)
        return
    written = to_yaml(settings)
    assert encodable(written) and Whole.model_validate(yaml.safe_load(written)) == settings


_simple = st.sampled_from(
    [0, 1, -1, 0.5, float("nan"), float("inf"), None, True, "x", "", [], {}, ["a"], {"a": 1}, "../x"]
)
_keys_of = {model: [s.key.replace("<name>", "some") for s in describe(model)] for model in FLOWS}


@given(st.data(), st.sampled_from(FLOWS), st.one_of(_simple, _simple, values, answers))
def test_any_value_of_any_setting(data: st.DataObject, model: type[Settings], value: object) -> None:
    key = data.draw(st.sampled_from(_keys_of[model]))
    nested = model().model_dump(mode="json")
    *parts, last = key.split(".")
    at = nested
    for part in parts:
        at = at.setdefault(part, {})
    at[last] = value
    try:
        settings = model.model_validate(nested)
    except ValidationError as error:
        said = loading._pydantic_advice(error, catalog(model))
        assert last in said and len(said) < 2000
        return
    written = to_yaml(settings)
    assert encodable(written) and model.model_validate(yaml.safe_load(written)) == settings
    assert json.dumps(settings.deciding(), allow_nan=False)


_value = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["true", "null", "nan", "1", "1e5", "a b", "a\\", '\\"', "${x}", "\\${x}", "", " ", "a,b", "[1]"]),
    st.text("ab1\\\"'${}[]():,= \n", max_size=8),
    any_text,
)


@given(st.one_of(_value, st.lists(_value, max_size=3)))
def test_a_sweeps_value_reaches_its_runs(value: Any) -> None:
    """What a grid holds is what comes out of the override that is made of it."""
    _, key, for_hydra = overrides_module._read(f"key={_hydra(value)}", catalog(SweepConfig))
    read = OverridesParser.create().parse_override(f"{key}={for_hydra}").value()
    [given_on] = OmegaConf.to_container(OmegaConf.create([read]), resolve=True)
    assert given_on == value and type(given_on) is type(value)
