"""Presets and Hydra overrides become settings: `load_preset` composes conf/ and validates what comes out.

Presets name absolute groups (`- /algorithm: sgpo`), so that `algorithm=grpo` overrides them. A file whose name begins
with an underscore is a base that presets share, and no preset itself.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from pydantic import ValidationError

from sgpo_core.config.base import OPERATIONAL, ConfigError, Settings

CONF = Path(__file__).resolve().parents[2] / "conf"

Config = TypeVar("Config", bound=Settings)


def presets(group: str) -> list[str]:
    """Names in a folder of conf/."""
    return sorted(p.stem for p in (CONF / group).glob("[!_]*.yaml"))


def to_yaml(config: Settings) -> str:
    """All settings, resolved, in the order of their definition; reads back to the same settings."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


@dataclass(frozen=True, slots=True)
class Setting:
    """One line of a flow's settings: dotted key, default, explanation, and whether it decides the result (and is thus
    part of a run's id)."""

    key: str
    default: Any
    text: str
    decides: bool


def describe(model: type[Settings], prefix: str = "", decides: bool = True) -> Iterator[Setting]:
    """Every setting, for --help and the docs."""
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        deciding = decides and OPERATIONAL not in field.metadata
        if isinstance(default, Settings):
            yield from describe(type(default), f"{prefix}{name}.", deciding)
        elif named := _named_settings(field.annotation):
            yield from describe(named, f"{prefix}{name}.<name>.", deciding)
        else:
            yield Setting(f"{prefix}{name}", default, field.description or "", deciding)


def _named_settings(annotation: Any) -> type[Settings] | None:
    """The settings of a dictionary of them, name -> settings; None for anything else."""
    kinds = get_args(annotation) if get_origin(annotation) is dict else ()
    return kinds[1] if kinds and isinstance(kinds[1], type) and issubclass(kinds[1], Settings) else None


def load_preset(model: type[Config], group: str, preset: str, overrides: Sequence[str]) -> Config:
    """conf/<group>/<preset>.yaml and Hydra overrides, validated. Raises ConfigError that names the setting."""
    if preset not in presets(group):
        raise ConfigError(f"unknown preset {preset!r} in conf/{group}: choose one of {', '.join(presets(group))}")
    # Hydra refuses keys that it does not know; it learns them, with their defaults, from the settings themselves.
    ConfigStore.instance().store(name=f"{group}_defaults", node=OmegaConf.create(model().model_dump(mode="json")))
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            values = _composed(f"{group}/{preset}", model, overrides)
    except ConfigError:
        raise
    except yaml.YAMLError as error:
        where = f"conf/{group}/{preset}.yaml, or a file that it names"
        raise ConfigError(f"{where}, is no YAML: {' '.join(str(error).split())}") from None
    except Exception as error:  # of Hydra, and what it trips over: algorithm=1, 5000 digits, ~train.betas.0
        raise ConfigError(_hydra_advice(str(error), model, overrides)) from error
    try:
        return model.model_validate({**values, "preset": preset})
    except ValidationError as error:
        raise ConfigError(_pydantic_advice(error, model)) from None


def _composed(name: str, model: type[Settings], overrides: Sequence[str]) -> dict[str, Any]:
    """The values that conf/ and the overrides give. Below a mapping, whose keys Hydra can't know (eval.sets.<name>, the
    fields of a request), a setting needs no plus; but a benchmark of that name has to be there."""
    below = [o for o in overrides if (key := _key(o)) and any(key.startswith(f"{m}.") for m in _mappings(model))]
    composed = compose(name, overrides=[o for o in overrides if o not in below])
    for override in below:
        mapping = next(m for m in _mappings(model) if _key(override).startswith(f"{m}."))
        there = OmegaConf.select(composed, mapping) or {}
        entry = _key(override).removeprefix(f"{mapping}.").split(".")[0]
        if mapping in _named(model) and entry not in there:
            names = f", only {', '.join(there)}" if there else ""
            raise ConfigError(f"{mapping}.{entry}: there is none of that name{names}")
    if below:
        composed = compose(name, overrides=[f"++{o}" if o in below else o for o in overrides])
    values = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _key(override: str) -> str:
    """The key that it sets, "" for one that adds or removes (+, ~)."""
    key, sign, _ = override.partition("=")
    return key if sign and re.fullmatch(r"[A-Za-z_][\w.-]*", key) else ""


def _mappings(model: type[Settings], prefix: str = "") -> Iterator[str]:
    """Keys of the settings that are mappings."""
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, Settings):
            yield from _mappings(type(default), f"{prefix}{name}.")
        elif get_origin(field.annotation) is dict:
            yield f"{prefix}{name}"


def _named(model: type[Settings]) -> set[str]:
    """Those of them that hold settings by name."""
    return {setting.key.partition(".<name>")[0] for setting in describe(model) if ".<name>" in setting.key}


def _hydra_advice(message: str, model: type[Settings], overrides: Sequence[str]) -> str:
    first = (message.strip().splitlines() or ["can't be read"])[0]
    if not any((key := override.partition("=")[0].lstrip("+~")) and key in first for override in overrides):
        first = f"{', '.join(overrides)}: {first}"
    if missing := re.search(r"Could not find '(\w+)/([^']*)'", first):
        group, name = missing.groups()
        return f"{group}={name}: there is no such choice; conf/{group} has {', '.join(presets(group))}"
    quoted = [part for part in first.split("'") if "." in part or part.isidentifier()]
    known = [setting.key for setting in describe(model)]
    close = difflib.get_close_matches(quoted[0], known, n=1) if quoted else []
    return " ".join([first, *([f"Did you mean {close[0]}?"] if close else []), "(--help lists every setting)"])


def _pydantic_advice(error: ValidationError, model: type[Settings]) -> str:
    explanations = {setting.key: setting.text for setting in describe(model)}
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            close = difflib.get_close_matches(key, list(explanations), n=1)
            lines.append(f"unknown setting {key}" + (f": did you mean {close[0]}?" if close else ""))
        elif problem["type"] == "value_error":  # settings that contradict each other
            where = f"{key}: " if key else ""
            lines.append(where + problem["msg"].removeprefix("Value error, "))
        else:
            meaning = f" ({explanations[key]})" if key in explanations else ""
            lines.append(f"{key}={repr(problem['input'])[:200]}: {problem['msg']}{meaning}")
    return "; ".join(lines)
