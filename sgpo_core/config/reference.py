"""The reference of all settings, docs/settings.md: `python -m sgpo_core.config.reference` prints its tables, and a test
compares them."""

from __future__ import annotations

from collections.abc import Iterable

from sgpo_core.config.base import Settings
from sgpo_core.config.catalog import Setting, describe
from sgpo_core.config.evaluation import EvaluationConfig
from sgpo_core.config.judge_eval import JudgeEvalConfig
from sgpo_core.config.judge_training import JudgeTrainingConfig
from sgpo_core.config.offline import OfflineConfig
from sgpo_core.config.run import RunConfig
from sgpo_core.config.sweep import SweepConfig
from sgpo_core.config.warm_start import WarmStartConfig

# Flow -> its settings, and those of another flow that its table refers to.
FLOWS: dict[str, tuple[type[Settings], type[Settings] | None]] = {
    "sgpo-online": (RunConfig, None),
    "sgpo-offline": (OfflineConfig, RunConfig),
    "warm-start": (WarmStartConfig, RunConfig),
    "judge-training": (JudgeTrainingConfig, RunConfig),
    "judge-eval": (JudgeEvalConfig, RunConfig),
    "sgpo-sweep": (SweepConfig, None),
    "benchmark-eval": (EvaluationConfig, RunConfig),
}


def as_markdown() -> str:
    """A table for each flow; a group of settings that stands in an earlier table is named only."""
    return "\n\n".join(_flow(name, model, other) for name, (model, other) in FLOWS.items())


def _flow(name: str, model: type[Settings], other: type[Settings] | None) -> str:
    known = {setting.key: setting for setting in describe(other)} if other else {}
    own = [s for s in describe(model) if not _same(s, known.get(s.key))]
    in_table, elsewhere = _groups(own), _groups(s for s in describe(model) if s not in own)
    shared = [f"`{group}`" for group in sorted(elsewhere - in_table)]
    shared += [f"the rest of `{group}`" for group in sorted(elsewhere & in_table)]
    lines = [f"## {name}", ""]
    if shared:
        lines += [f"As in sgpo-online: {', '.join(shared)}.", ""]
    return "\n".join([*lines, *_table(own)])


def _groups(settings: Iterable[Setting]) -> set[str]:
    return {setting.key.split(".")[0] for setting in settings}


def _same(setting: Setting, other: Setting | None) -> bool:
    """The same text in both tables; the default may be another one, which is shown then."""
    return other is not None and (setting.text, setting.default) == (other.text, other.default)


def _table(settings: Iterable[Setting]) -> list[str]:
    rows = [
        f"| `{s.key}` | `{_shown(s.default)}` | {'yes' if s.decides else 'no'} | {s.text.replace('|', chr(92) + '|')} |"
        for s in settings
    ]
    return ["| setting | default | in a run's id | meaning |", "|---|---|---|---|", *rows]


def _shown(default: object) -> str:
    if default is None or isinstance(default, bool):
        return str(default).lower().replace("none", "null")
    if isinstance(default, str):
        return repr(default)[1:-1] or '""'
    return str(default)


if __name__ == "__main__":
    print(as_markdown())
