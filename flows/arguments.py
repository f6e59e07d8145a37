"""How a command line is read: one word (a preset, a policy, a folder), settings as key=value, and options, in any
order. What is wrong ends the process with status 2 and a line that says what to do."""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from sgpo_core.config.base import Settings
from sgpo_core.config.catalog import catalog, describe
from sgpo_core.config.suggestions import did_you_mean

_SETTING = re.compile(r"[+~]+[A-Za-z_]|[A-Za-z_][\w.@-]*=")


@dataclass(frozen=True, slots=True)
class Word:
    """The argument that stands alone. With a default it may be left out."""

    name: str
    meaning: str
    default: str | None = None
    choices: tuple[str, ...] = ()  # where they are known


class Parser(argparse.ArgumentParser):
    """Takes the word and the settings, where there are such, and what `add_argument` adds."""

    def __init__(self, program: str, about: str, word: Word | None, settings: type[Settings] | None) -> None:
        self.word, self.settings = word, settings
        name = word.name.upper() if word else None
        shown = [f"[{name}]" if word.default else name] if word and name else []
        super().__init__(
            program,
            usage=" ".join([program, *shown, *(["[key=value ...]"] if settings else []), "[options]"]),
            description=about,
            epilog=_listing(settings) if settings else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_argument("words", nargs="*", metavar=name, help=word.meaning if word else argparse.SUPPRESS)
        # Settings that have an option of their own: its type makes the whole key=value of its argument.
        self.set_defaults(shortcuts=[])

    def read(self, line: Sequence[str]) -> dict[str, Any]:
        """The arguments by name; settings are `overrides`."""
        self._check_options([word.partition("=")[0] for word in line if word.startswith("--")])
        given = vars(self.parse_intermixed_args(line))
        words, overrides, shortcuts = given.pop("words"), [], given.pop("shortcuts")
        if self.settings:
            overrides = [word for word in words if _SETTING.match(word)]
            words = [word for word in words if word not in overrides]
        if self.word:
            given[self.word.name] = words.pop(0) if words else self.word.default
            if given[self.word.name] is None:
                self.error(f"{self.word.name.upper()} is missing: {self.word.meaning}")
        if self.settings:
            given["overrides"] = [*words, *overrides, *shortcuts]  # words are refused there, with what is meant
        elif words:
            self.error(f"{words[0]} is one word too many: {self.usage}")
        return given

    def option_names(self) -> list[str]:
        return [name for name in self._option_string_actions if name.startswith("--")]

    def _check_options(self, options: Sequence[str]) -> None:
        for option in options:
            if not any(known.startswith(option) for known in self._option_string_actions):
                self.error(f"there is no option {option}: {self._meant_by(option)}")
            if options.count(option) > 1:
                self.error(f"{option} is given twice: once is enough")

    def _meant_by(self, option: str) -> str:
        name = option.lstrip("-").replace("-", "_")
        if self.settings and name in {*catalog(self.settings).settings, *catalog(self.settings).groups}:
            return f"a setting is given without dashes, {name}=VALUE"
        return did_you_mean(option, self._option_string_actions) or "--help lists them"

    def error(self, message: str) -> NoReturn:
        print(f"error: {message.removeprefix('argument ')}", file=sys.stderr)
        sys.exit(2)


def _listing(settings: type[Settings]) -> str:
    """Every setting with its default, for --help."""
    described = list(describe(settings))
    width = max(len(setting.key) for setting in described)
    lines = [f"  {s.key:<{width}}  {s.text} [{s.default}]" for s in described]
    return "\n".join(["settings [default], set by key=value; presets choose otherwise (--show-config):", *lines])


def whole(least: int, most: float = math.inf) -> Callable[[str], int]:
    """Reads a whole number within these limits."""

    def read(text: str) -> int:
        if not (text.isdecimal() and least <= int(text) <= most):
            wanted = f"between {least} and {most}" if most < math.inf else f"of at least {least}"
            raise argparse.ArgumentTypeError(f"a whole number {wanted} is wanted, got {text!r}")
        return int(text)

    return read


def above_zero(text: str) -> float:
    """Reads a number."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"a number above 0 is wanted, got {text!r}")
    return number


def numbers(text: str) -> list[int]:
    """Reads 1,10,30."""
    parts = text.split(",")
    if not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"numbers with commas between them are wanted, got {text!r}")
    return [int(part) for part in parts]
