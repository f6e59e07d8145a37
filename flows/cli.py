"""The command line that all flows share: `python -m flows.NAME PRESET [hydra overrides]`.

Standard output carries the result alone, one JSON object on its last line; everything else goes to standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sgpo_core.config.base import ConfigError, Settings
from sgpo_core.config.loading import describe, presets, to_yaml
from tasks.engines.guard import start_guard
from tasks.run import was_terminated
from tasks.services.environment import prepare_process

_FULL_DISK = ("no space left on device", "disk is full")  # the system's words, and SQLite's


def main(
    name: str,
    about: str,
    group: str,
    settings: type[Settings],
    load: Callable[[str, Sequence[str]], Settings],
    run: Callable[..., dict[str, Any]],
    check: Callable[[Any], None] | None = None,
    flags: Mapping[str, str] | None = None,
    default: str | None = None,
    shortcuts: Mapping[str, str] | None = None,
) -> None:
    """Parses, checks everything that can be checked, runs, prints the result. Exit status 2 for a wrong setting, 1 for
    a run that failed. `flags` (name -> help) go to `run` by name, beside `fresh`; `shortcuts` (name -> setting) are
    options that set a setting. With a `default` the preset may be left out."""
    flags, shortcuts = {"fresh": "start over, even if the same settings ran before", **(flags or {})}, shortcuts or {}
    options = _parser(name, about, group, settings, flags, default, shortcuts).parse_args()
    if default is not None and (options.preset is None or "=" in options.preset):
        options.overrides = [*([options.preset] if options.preset else []), *options.overrides]
        options.preset = default
    given = {setting: getattr(options, shortcut) for shortcut, setting in shortcuts.items()}
    options.overrides += [f"{setting}={value}" for setting, value in given.items() if value is not None]

    def checked() -> dict[str, Any] | str:
        config = load(options.preset, options.overrides)
        if options.show_config:
            return to_yaml(config)
        if check is not None:
            check(config)
        return run(options.preset, options.overrides, **{flag: getattr(options, flag) for flag in flags})

    run_and_report(checked)


def run_and_report(run: Callable[[], dict[str, Any] | str]) -> None:
    """Runs, and prints what comes back: an object as JSON, a text as it is. Errors end in one line that says what to
    do; SGPO_TRACEBACK=1 shows the whole of an unexpected one."""
    result_stream = _keep_stdout_clean()
    prepare_process()
    start_guard()
    try:
        result = run()
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if was_terminated(error):
            print("terminated; the same command goes on from the last checkpoint", file=sys.stderr)
            sys.exit(143)
        if os.environ.get("SGPO_TRACEBACK"):
            raise
        print(f"error: {_advice(error)} (SGPO_TRACEBACK=1 shows where)", file=sys.stderr)
        sys.exit(1)
    print(result if isinstance(result, str) else json.dumps(result), file=result_stream, flush=True)


def settings_parser(name: str, about: str, settings: type[Settings]) -> argparse.ArgumentParser:
    """A parser without arguments yet, whose help lists all settings."""
    width = max(len(setting.key) for setting in describe(settings))
    listing = "\n".join(f"  {s.key:<{width}}  {s.text} [{s.default}]" for s in describe(settings))
    return argparse.ArgumentParser(
        prog=f"python -m flows.{name}",
        description=about,
        epilog=f"settings [default], set by key=value; presets choose otherwise (--show-config):\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _parser(
    name: str,
    about: str,
    group: str,
    settings: type[Settings],
    flags: Mapping[str, str],
    default: str | None,
    shortcuts: Mapping[str, str],
) -> argparse.ArgumentParser:
    parser = settings_parser(name, about, settings)
    known = f"one of: {', '.join(presets(group))}" + (f" [{default}]" if default else "")
    parser.add_argument("preset", nargs="?" if default else None, help=known)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings, e.g. algorithm=grpo seed=1")
    for flag, text in flags.items():
        parser.add_argument(f"--{flag.replace('_', '-')}", action="store_true", help=text)
    for shortcut, setting in shortcuts.items():
        parser.add_argument(f"--{shortcut.replace('_', '-')}", metavar="VALUE", help=f"the same as {setting}=VALUE")
    parser.add_argument("--show-config", action="store_true", help="print the resolved settings and stop")
    return parser


def _keep_stdout_clean() -> Any:
    """Returns the real standard output; what libraries and child processes print goes to standard error."""
    real = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return real


def _advice(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # An error that crossed a process boundary brings its traceback as text: what happened is the last line.
    message = lines[-1] if "Traceback" in str(error) or type(error).__name__.startswith("RayTaskError") else lines[0]
    if any(sign in str(error).lower() for sign in _FULL_DISK):
        return f"the disk is full ({message}): free some and give the same command again; what was written is whole"
    return message
