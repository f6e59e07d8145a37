"""Presets and Hydra overrides become settings: `load_preset` composes conf/ and validates what comes out.

Presets name absolute groups (`- /algorithm: sgpo`), so that `algorithm=grpo` overrides them. A file whose name begins
with an underscore is a base that presets share, and no preset itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeVar

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import OverrideParseException
from omegaconf import OmegaConf
from pydantic import ValidationError

from sgpo_core.config.base import ConfigError, Settings
from sgpo_core.config.catalog import CONF, Catalog, catalog, not_among, require_preset
from sgpo_core.config.overrides import Override, for_hydra, read_overrides, unknown
from sgpo_core.config.suggestions import did_you_mean

Config = TypeVar("Config", bound=Settings)


def to_yaml(config: Settings) -> str:
    """All settings, resolved, in the order of their definition; reads back to the same settings."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def load_preset(model: type[Config], group: str, preset: str, overrides: Sequence[str]) -> Config:
    """conf/<group>/<preset>.yaml and Hydra overrides, validated. Raises ConfigError that names the setting."""
    loaded: Config = _load_once(model, group, preset, tuple(overrides))
    return loaded


@lru_cache(maxsize=512)  # a sweep is checked before it is run: what its runs are is asked several times
def _load_once(model: type[Config], group: str, preset: str, overrides: tuple[str, ...]) -> Config:
    require_preset("preset", group, preset)
    read = read_overrides(overrides, model)
    # Hydra refuses keys that it does not know; it learns them, with their defaults, from the settings themselves.
    ConfigStore.instance().store(name=f"{group}_defaults", node=OmegaConf.create(model().model_dump(mode="json")))
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            values = _composed(f"{group}/{preset}", model, read)
    except ConfigError:
        raise
    except yaml.YAMLError as error:
        where = f"conf/{group}/{preset}.yaml, or a file that it names"
        raise ConfigError(f"{where}, is no YAML: {' '.join(str(error).split())}") from None
    except Exception as error:  # of Hydra, and what it trips over: algorithm=1, 5000 digits, ~train.betas.0
        raise ConfigError(_hydra_advice(error, catalog(model), overrides)) from error
    try:
        return model.model_validate({**values, "preset": preset})
    except ValidationError as error:
        raise ConfigError(_pydantic_advice(error, catalog(model))) from None


def _composed(name: str, model: type[Settings], overrides: Sequence[Override]) -> dict[str, Any]:
    """The values that conf/ and the overrides give. A name below a mapping (eval.sets.<name>) has to be there already,
    but for one that is added with a plus."""
    named = catalog(model).named
    below = {o: mapping for o in overrides if (mapping := catalog(model).mapping_of(o.key)) in named}
    if below:
        composed = compose(name, overrides=[for_hydra(o, model) for o in overrides if o not in below])
        for override, mapping in below.items():
            there = OmegaConf.select(composed, mapping) or {}
            entry = override.key.removeprefix(f"{mapping}.").split(".")[0]
            if override.sign != "+" and entry not in there:
                raise ConfigError(not_among(f"{mapping}.{entry}", entry, list(there), f"{mapping} has"))
    values = OmegaConf.to_container(compose(name, overrides=[for_hydra(o, model) for o in overrides]), resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _hydra_advice(error: Exception, known: Catalog, overrides: Sequence[str]) -> str:
    message = (str(error).strip().splitlines() or ["can't be read"])[0]
    if isinstance(error, OverrideParseException):
        key, _, value = error.override.partition("=")
        if set(value) & set("\"'[]{}()"):
            return f"{error.override}: its quotes or brackets can't be read (a text with = or ~ in it needs quotes)"
        right = f'{key}=["{value}"]' if known.is_list(key) else f'{key}="{value}"'
        return f"{error.override}: a text like this needs quotes: {right}, in a shell '{right}'"
    if several := re.search(r"Ambiguous value for argument '((.*?)=(.*))'", message):
        override, key, value = several.groups()
        a_list = known.is_list(key) or key in known.groups
        fix = f"a list is written {key}=[{value}]" if a_list else "the flow sgpo-sweep tries several"
        return f"{override}: one value is wanted; {fix}"
    if absent := re.match(r"Could not (?:override|delete) '(.+?)'\. *No match in the defaults list", message):
        keys = [key for key in known.settings if key.startswith(f"{absent[1]}.")]
        return (
            f"no file of conf/{absent[1]} is for this flow: set {', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''}"
        )
    if not any((key := override.partition("=")[0].lstrip("+~")) and key in message for override in overrides):
        return f"{', '.join(overrides)}: {message}"
    return message


def _pydantic_advice(error: ValidationError, known: Catalog) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(unknown(key, str(problem["input"]), known))
        elif problem["type"] == "value_error":  # settings that contradict each other
            where = f"{key}: " if key else ""
            lines.append(where + problem["msg"].removeprefix("Value error, ")[:1000])  # it may hold a value
        else:
            choices = re.findall(r"'([^']*)'", problem["msg"]) if problem["type"] == "literal_error" else []
            meant = did_you_mean(str(problem["input"]), choices)
            meaning = f"({known.settings[key].text})" if key in known.settings else ""
            said = [f"{key}={repr(problem['input'])[:200]}:", meant, problem["msg"], meaning]
            lines.append(" ".join(part for part in said if part))
    return "; ".join(lines)
