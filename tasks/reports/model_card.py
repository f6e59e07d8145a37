"""README.md of a finished policy: what it is, what it was trained on and how, what it reaches, how to repeat it. In the
form of the Hugging Face hub. It holds nothing of the machine that it was made on: it may be published."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sgpo_core.config.run import RunConfig, TrainingConfig
from sgpo_core.config.warm_start import load_warm_start
from sgpo_core.data.hub import is_id
from sgpo_core.data.problems import FILES

_CARD = """---
{metadata}
---

# {title}

A policy after {iterations} iterations of {algorithm}, trained from {start} on {data}{judge}.

| benchmark | responses to each problem | avg@k at the start | avg@k at the end |
|---|---|---|---|
{scores}

avg@k is the mean accuracy over problems and responses, ± its standard error. The benchmarks were evaluated during
training. None of their problems was among those of this training. They were measured by protocol `{protocol}`: runs
whose cards name the same protocol were measured in the same way. {groups}
{curve}
## Use

```python
{use}
```

{prompt}

## Repeat

`python -m flows.{flow} {preset} KEY=VALUE ...` repeats it, if every setting below that differs from the preset's is
given as KEY=VALUE. The seed is {seed}. The MLflow run `{mlflow_run}` has the versions of all packages and all metrics.
A folder is given by its name alone, and the address of a server is left out (`...`).

<details><summary>All settings</summary>

```yaml
{settings}
```

</details>
"""

USED_AS = '"policy"'  # in the example; whoever moves the folder puts its new name here
_USE = f"""from transformers import pipeline

generate = pipeline("text-generation", {USED_AS})"""
# For a tokenizer that `pipeline` does not read as it is.
_USE_WITH_TOKENIZER = f"""from transformers import PreTrainedTokenizerFast, pipeline

# Without this, transformers puts the tokenizer that is usual for the model's type in place of the one that is here, and
# what is generated makes no sense.
tokenizer = PreTrainedTokenizerFast.from_pretrained({USED_AS})
generate = pipeline("text-generation", {USED_AS}, tokenizer=tokenizer)"""

_ADDRESS = re.compile(r"\w+://\S+")
_FOLDER = re.compile(r"(~|\.\.?|/[^/\n]+)/[^\n]*")

Metrics = Mapping[str, float]


def model_card(
    config: TrainingConfig,
    iterations: int,
    first: Metrics,
    last: Metrics,
    mlflow_run: str,
    protocol: str,
    evaluations: Mapping[int, Metrics] | None = None,
    own_tokenizer: bool = False,
) -> str:
    """`first` and `last`: metrics of the first evaluation and groups, and the latest of each. `protocol`: id of how the
    benchmarks were evaluated. `evaluations`: iteration -> metrics, of those with an evaluation. `own_tokenizer`:
    whether `pipeline` needs to be told which tokenizer it is."""
    from huggingface_hub import ModelCardData

    online = isinstance(config, RunConfig)
    judge = f"`{config.judge.label}`" if online else f"`{config.judge.label}`, where the data set has no verdicts"
    metadata = ModelCardData(
        base_model=start_model(config).partition("@")[0] if _is_hub_model(start_model(config)) else None,
        datasets=[config.data.source] if online and _is_hub_data(config.data.source) else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=[*dict.fromkeys(["sgpo", "reinforcement-learning", config.algorithm.name])],
    )
    return _CARD.format(
        metadata=metadata.to_yaml().strip(),
        title=config.run_id,
        iterations=iterations,
        algorithm=config.algorithm.name,
        start=start_of(config),
        data=f"`{data_name(config.data.source)}`" if online else "recorded responses",
        judge=f", with the judge {judge}" if config.algorithm.credit.scope != "none" else "",
        scores="\n".join(
            f"| {benchmark} | {settings.k} | {_score(first, benchmark)} | {_score(last, benchmark)} |"
            for benchmark, settings in config.eval.sets.items()
        ),
        protocol=protocol,
        groups=_all_negative(first, last),
        curve=_curve(list(config.eval.sets), evaluations or {}),
        use=_USE_WITH_TOKENIZER if own_tokenizer else _USE,
        prompt=_prompt(config),
        flow="online" if online else "offline",
        preset=config.preset,
        seed=config.seed,
        mlflow_run=mlflow_run,
        settings=yaml.safe_dump(public(config.model_dump(mode="json")), sort_keys=False).strip(),
    )


def start_model(config: TrainingConfig) -> str:
    """The model that training began with, its supervised start included; "" for the embedded one."""
    if config.model.path is None and config.model.warm_start:
        return load_warm_start(config.model.warm_start).model.path or ""
    return config.model.path or ""


def public(value: Any) -> Any:
    """Settings without what they tell of a machine: of a folder the name, of a server nothing."""
    if isinstance(value, dict):
        return {name: public(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [public(inner) for inner in value]
    if isinstance(value, str) and _ADDRESS.fullmatch(value):
        return "..."
    if isinstance(value, str) and _FOLDER.fullmatch(value) and not value.startswith("/dev/"):  # which all machines have
        return Path(value).name
    return value


def start_of(config: TrainingConfig) -> str:
    """What the policy was before the training, in words."""
    model = start_model(config)
    start = f"`{model if _is_hub_model(model) else Path(model).name}`" if model else "the embedded model"
    if config.model.path is None and config.model.warm_start:
        start = f"the supervised start `{config.model.warm_start}` of {start}"
    if isinstance(config, RunConfig) and config.offline_start:
        return f"the policy of the offline run `{config.offline_start}`, which began with {start}"
    return start


def data_name(source: str) -> str:
    """A data set as the hub has it, or else the name of its file."""
    return source if _is_hub_data(source) else Path(source).name


def _is_hub_model(model: str) -> bool:
    return is_id(model) and not (Path(model).expanduser() / "config.json").is_file()


def _is_hub_data(source: str) -> bool:
    return is_id(source) and not source.endswith(FILES) and not Path(source).is_dir()


def _score(metrics: Mapping[str, float], benchmark: str) -> str:
    mean, error = (metrics.get(f"eval/{benchmark}/{name}") for name in ("avg_at_k", "avg_stderr"))
    return "-" if mean is None or error is None else f"{mean:.3f} ± {error:.3f}"


def _curve(benchmarks: list[str], evaluations: Mapping[int, Metrics]) -> str:
    """A table of the accuracy over the iterations."""
    if not evaluations:
        return ""
    rows = [[str(i), *(_score(metrics, name) for name in benchmarks)] for i, metrics in sorted(evaluations.items())]
    lines = [["avg@k after iteration", *benchmarks], ["---"] * (1 + len(benchmarks)), *rows]
    return "\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def _all_negative(first: Mapping[str, float], last: Mapping[str, float]) -> str:
    before, after = (metrics.get("group/all_negative_frac") for metrics in (first, last))
    if before is None or after is None:
        return ""
    return f"Of the problems of the first iteration {before:.0%} had no correct response, of the last {after:.0%}."


def _prompt(config: TrainingConfig) -> str:
    parts = []
    if config.model.preamble:
        parts.append("before each problem stood the text `model.preamble` of the settings below")
    if config.model.instruction:
        parts.append(f"after each problem stood `{config.model.instruction.strip()}`")
    parts.append("the chat template was used" if config.model.chat_template else "no chat template was used")
    text = ", ".join(parts)
    return f"In training, {text}. Prompt it in the same way."
