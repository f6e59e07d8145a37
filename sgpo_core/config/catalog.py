"""What there is to set and to choose: the settings of a flow by their dotted keys, and the names in conf/."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import WithJsonSchema

from sgpo_core.config.base import OPERATIONAL, ConfigError, Settings
from sgpo_core.config.suggestions import did_you_mean

CONF = Path(__file__).resolve().parents[2] / "conf"
NAMED = "<name>"  # stands in a key for a name that the user gives: eval.sets.<name>.k


def presets(group: str) -> list[str]:
    """Names in a folder of conf/."""
    return sorted(p.stem for p in (CONF / group).glob("[!_]*.yaml"))


def one_of(group: str) -> WithJsonSchema:
    """Marks a flow's parameter as a name in conf/<group>: Prefect's form offers them, and its server refuses others."""
    return WithJsonSchema({"type": "string", "enum": presets(group)})


def require_preset(setting: str, group: str, name: str) -> None:
    """Raises ConfigError where a setting (or a command's argument) names a file of conf/ that is not there."""
    if name not in (known := presets(group)):
        raise ConfigError(not_among(f"{setting}={name}", name, known, f"conf/{group} has"))


def not_among(said: str, name: str, known: Sequence[str], there: str) -> str:
    """What is said of a name that is none of those known."""
    return f"{said}: {did_you_mean(name, known) or 'there is none of that name'} ({there} {', '.join(known)})"


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
            yield from describe(named, f"{prefix}{name}.{NAMED}.", deciding)
        else:
            yield Setting(f"{prefix}{name}", default, field.description or "", deciding)


def _named_settings(annotation: Any) -> type[Settings] | None:
    """The settings of a dictionary of them, name -> settings; None for anything else."""
    kinds = get_args(annotation) if get_origin(annotation) is dict else ()
    return kinds[1] if kinds and isinstance(kinds[1], type) and issubclass(kinds[1], Settings) else None


@dataclass(frozen=True)
class Catalog:
    """Keys of a flow's settings. `sections` stand for several settings (algorithm, algorithm.credit); for `groups`,
    some of them, conf/ has choices. `mappings` have keys that are not known beforehand: `named` ones hold settings by
    name (eval.sets), of the others `of_lists` take every key as a whole (grid)."""

    settings: dict[str, Setting]
    sections: set[str]
    groups: set[str]
    mappings: set[str]
    named: set[str]
    of_lists: set[str]

    def mapping_of(self, key: str) -> str | None:
        """The mapping that a key is below."""
        return next((mapping for mapping in self.mappings if key.startswith(f"{mapping}.")), None)

    def is_list(self, key: str) -> bool:
        return key in self.settings and isinstance(self.settings[key].default, list | tuple)


@cache
def catalog(model: type[Settings]) -> Catalog:
    """Of a flow's settings; conf/ is looked at once."""
    settings = {setting.key: setting for setting in describe(model)}
    parts = [key.split(".") for key in settings]
    sections = {".".join(p[:n]) for p in parts for n in range(1, len(p)) if NAMED not in p[:n]}
    kinds = dict(_mappings(model))
    return Catalog(
        settings,
        sections,
        {name for name in sections if (CONF / name).is_dir()},
        set(kinds),
        {key for key, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, Settings)},
        {key for key, kind in kinds.items() if get_origin(kind) is list},
    )


def _mappings(model: type[Settings], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Keys of the settings that are mappings, and what these hold."""
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, Settings):
            yield from _mappings(type(default), f"{prefix}{name}.")
        elif get_origin(field.annotation) is dict:
            yield f"{prefix}{name}", get_args(field.annotation)[1]
