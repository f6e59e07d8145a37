"""README.md of a finished policy: what it is, what it was trained on and how, what it reaches, how to repeat it. In the
form of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sgpo_core.config.loading import to_yaml
from sgpo_core.config.run import RunConfig, TrainingConfig
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
training. None of their problems was among those of this training. {groups}

## Use

```python
from transformers import pipeline

generate = pipeline("text-generation", "policy")
```

{prompt}

## Repeat

`python -m flows.{flow} {preset} KEY=VALUE ...` repeats it, if every setting below that differs from the preset's is
given as KEY=VALUE. The seed is {seed}. The MLflow run `{mlflow_run}` has the versions of all packages and all metrics.

<details><summary>All settings</summary>

```yaml
{settings}
```

</details>
"""


def model_card(
    config: TrainingConfig, iterations: int, first: Mapping[str, float], last: Mapping[str, float], mlflow_run: str
) -> str:
    """`first` and `last`: metrics of the first evaluation and groups, and the latest of each."""
    from huggingface_hub import ModelCardData

    model, data = config.model.path or "", config.data.source
    model_id = is_id(model) and not (Path(model).expanduser() / "config.json").is_file()
    data_id = is_id(data) and not data.endswith(FILES)
    online = isinstance(config, RunConfig)
    judge = f"`{config.judge.label}`" if online else f"`{config.judge.label}`, where the data set has no verdicts"
    metadata = ModelCardData(
        base_model=model.partition("@")[0] if model_id else None,
        datasets=[data] if online and data_id else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["sgpo", "reinforcement-learning", config.algorithm.name],
    )
    return _CARD.format(
        metadata=metadata.to_yaml().strip(),
        title=config.run_id,
        iterations=iterations,
        algorithm=config.algorithm.name,
        start=_start(config, model if model_id else Path(model).name),  # the settings have its path
        data=f"`{data if data_id else Path(data).name}`" if online else "recorded responses",
        judge=f", with the judge {judge}" if config.algorithm.credit.scope != "none" else "",
        scores="\n".join(
            f"| {benchmark} | {settings.k} | {_score(first, benchmark)} | {_score(last, benchmark)} |"
            for benchmark, settings in config.eval.sets.items()
        ),
        groups=_all_negative(first, last),
        prompt=_prompt(config),
        flow="online" if online else "offline",
        preset=config.preset,
        seed=config.seed,
        mlflow_run=mlflow_run,
        settings=to_yaml(config).strip(),
    )


def _start(config: TrainingConfig, model: str) -> str:
    start = f"`{model}`" if model else f"the supervised start `{config.model.warm_start}`"
    if isinstance(config, RunConfig) and config.offline_start:
        return f"the policy of the offline run `{config.offline_start}`, which began with {start}"
    return start


def _score(metrics: Mapping[str, float], benchmark: str) -> str:
    mean, error = (metrics.get(f"eval/{benchmark}/{name}") for name in ("avg_at_k", "avg_stderr"))
    return "-" if mean is None or error is None else f"{mean:.3f} ± {error:.3f}"


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
