r"""Settings as users write them: key=value in Hydra's grammar, read before Hydra does. Unknown keys and choices are
named with what was meant, and what Hydra wants a plus for is given one.

In double quotes \n, \r, \t, \\ and \" are what they are in YAML; in single quotes a backslash is a backslash.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, NamedTuple

from pydantic import WithJsonSchema

from sgpo_core.config.base import ConfigError, Settings
from sgpo_core.config.catalog import CONF, NAMED, Catalog, catalog, not_among, presets
from sgpo_core.config.suggestions import did_you_mean

_WRITTEN = re.compile(r"(?P<sign>\+\+|\+|~|)(?P<key>[A-Za-z_][\w.-]*)(?P<equals>=?)(?P<value>.*)", re.DOTALL)
_QUOTED = re.compile(r"""'(?:\\.|[^'\\])*'|"((?:\\.|[^"\\])*)\"""", re.DOTALL)
_ESCAPE = re.compile(r"""\\+(?=\$\{)|\\([nrt"\\])""")  # a backslash before ${ is OmegaConf's own
_SHOWN = 6  # settings of a section that are named beside one that it lacks
_SIGNS = {"n": "\n", "r": "\r", "t": "\t"}


# A flow's parameter: Prefect's server refuses what is not key=value.
Overrides = Annotated[Sequence[str], WithJsonSchema({"type": "array", "items": {"type": "string", "pattern": "=|^~"}})]


class Override(NamedTuple):
    """`~key` takes a setting away, `+key` adds a name below a mapping; elsewhere a plus means nothing."""

    sign: str
    key: str
    value: str


def read_overrides(overrides: Sequence[str], model: type[Settings]) -> list[Override]:
    """Raises ConfigError that names all that is wrong with keys and choices; values are left to Hydra and pydantic."""
    known = catalog(model)
    read = [_read(text, known) for text in overrides]
    if problems := [problem for override in read for problem in _problems(override, known)]:
        raise ConfigError("; ".join(dict.fromkeys(problems)))
    return read


def for_hydra(override: Override, model: type[Settings]) -> str:
    """As Hydra takes it: with a plus where it does not know the keys, below a mapping and within braces."""
    sign, key, value = override
    mapping = catalog(model).mapping_of(key)
    if sign == "~":
        return f"~{key}"
    if mapping in catalog(model).of_lists:
        return f"++{mapping}={{{key.removeprefix(f'{mapping}.')}: {value}}}"
    return f"++{key}={value}" if mapping or value.startswith("{") else f"{key}={value}"


def unknown(key: str, value: str, known: Catalog) -> str:
    """What is said of a key that is not there. A group of conf/ is meant only where it has such a choice."""
    meant = [_filled(name, key) for name in known.settings if name != "preset"]
    meant += sorted(known.sections if value.startswith("{") else (g for g in known.groups if value in presets(g)))
    section = key.rpartition(".")[0]
    beside = [name for name in known.settings if section and name.rpartition(".")[0] == section]
    shown = ", ".join(name.rpartition(".")[2] for name in beside[:_SHOWN]) + (", ..." if len(beside) > _SHOWN else "")
    there = f"{section} has {shown}" if beside else "docs/settings.md lists them"
    if not (suggested := did_you_mean(key, meant)):
        return f"no setting {key!r}: {there}"
    elsewhere = beside and all(f"{section}." not in word for word in suggested.split())
    return f"no setting {key!r}: {suggested}" + (f" ({there})" if elsewhere else "")


def _read(text: str, known: Catalog) -> Override:
    found = _WRITTEN.fullmatch(text)
    if found is None or not (found["equals"] or (found["sign"] == "~" and not found["value"])):
        keys = [*known.settings, *sorted(known.sections)]
        meant = f"write {text}=VALUE" if text in keys else did_you_mean(text.partition("=")[0], keys)
        raise ConfigError(f"{text!r} is not key=value: {meant or 'a setting is given as in seed=1'}")
    return Override(found["sign"][:1], found["key"], _QUOTED.sub(_unescaped, found["value"]))


def quoted(text: str) -> str:
    """A text as an override writes it."""
    return '"' + re.sub(r"""["\\]|\$(?=\{)""", lambda sign: f"\\{sign[0]}", text) + '"'


def _unescaped(found: re.Match[str]) -> str:
    """As Hydra writes it, for whom a backslash is special only before a quote and at the end."""
    if (within := found[1]) is None:
        return found[0]
    text = _ESCAPE.sub(lambda escape: _SIGNS.get(sign, sign) if (sign := escape[1]) else escape[0], within)
    return '"' + re.sub(r"""(\\*)("|\Z)""", lambda end: end[1] * 2 + (f"\\{end[2]}" if end[2] else ""), text) + '"'


def _problems(override: Override, known: Catalog) -> Iterator[str]:
    sign, key, value = override
    if key == "preset":
        yield f"preset={value}: the preset is given by itself, as the first word or parameter"
    elif key not in known.sections:
        if not _is_there(key, known):
            yield unknown(key, value, known)
    elif key in known.groups and not value.startswith("{"):
        yield from _wrong_choices(key, value)
    elif sign != "~" and not value.startswith("{"):
        within = [name for name in known.settings if name.startswith(f"{key}.")]
        yield f"{key}={value}: {key} is several settings, {', '.join(within[:3])}{', ...' if len(within) > 3 else ''}"


def _is_there(key: str, known: Catalog) -> bool:
    """A name below a mapping is not looked at: the preset decides which benchmarks there are."""
    mapping = known.mapping_of(key)
    if mapping not in known.named:
        return mapping is not None or key in known.settings
    _, _, rest = key.removeprefix(f"{mapping}.").partition(".")
    return not rest or f"{mapping}.{NAMED}.{rest}" in known.settings


def _filled(known: str, key: str) -> str:
    """The known key with the name that the user gave in its place."""
    parts, given = known.split("."), key.split(".")
    if len(parts) == len(given) and NAMED in parts:
        parts[parts.index(NAMED)] = given[parts.index(NAMED)]
    return ".".join(parts)


def _wrong_choices(group: str, value: str) -> Iterator[str]:
    known, bases = presets(group), [file.stem for file in (CONF / group).glob("_*.yaml")]
    for name in [part.strip(" '\"") for part in value.strip("[]").split(",")]:
        if name not in ("", "null", *known, *bases):
            yield not_among(f"{group}={name}", name, known, f"conf/{group} has")
