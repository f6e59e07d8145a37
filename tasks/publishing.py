"""A finished run on the Hugging Face hub: its policy as a model, its responses as a data set.

Everything is checked before anything is sent: that the run is complete, that its policy is what was written, and that
no file tells where it was made.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sgpo_core.config.base import ConfigError
from sgpo_core.config.offline import SAMPLED, OfflineConfig, read_settings
from sgpo_core.config.run import TrainingConfig
from sgpo_core.data import hub
from sgpo_core.storage.atomic import read_json, write_text
from sgpo_core.storage.digests import NAME as DIGESTS
from sgpo_core.storage.digests import is_as_written
from sgpo_core.storage.rollout_table import SCHEMA
from sgpo_core.storage.run_dir import RunPaths
from sgpo_core.storage.weights import is_policy
from tasks.models import stand_in
from tasks.models.folders import undamaged
from tasks.paths import REPOSITORY, home, run_named, writable_home
from tasks.reports.data_card import data_card
from tasks.reports.model_card import USED_AS, data_name, public, start_model, start_of

_SENT = (
    *("README.md", "LICENSE*", "*.safetensors", "*.json", "*.jinja", "merges.txt", "vocab.txt"),
    *("adapter/*.json", "adapter/*.safetensors"),
)
# Of an earlier publication, what would stand beside the new: weights in other parts, adapters, iterations.
_REPLACED = {"model": ("model*.safetensors*", "adapter/*"), "dataset": ("data/iteration-*.parquet",)}
_VOCABULARY = ("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt")  # which hold any word there is
_SECRET = re.compile(r"\b(hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,})")
_ROOTS = "home|users|root|tmp|mnt|media|data|scratch|work|workspace|opt|srv|var|nfs|gpfs|lustre|shared|storage|raid"
_PLACE = re.compile(rf"(?<![\w./:-])(~|/(?i:{_ROOTS}))/[^\s\"'`|]+")
_ADDRESS = re.compile(r"\w+://\S+")
_ANSWERED = re.compile(r"answered \d+(?: [A-Z]\w+)*")


def publish(run: str, to: str | None, dataset: str | None, private: bool) -> list[str]:
    """Sends what a run's folder or id stands for: its policy as the model `to`, its responses as the data set
    `dataset`. Returns the addresses of their pages. Raises ConfigError that says what to do."""
    if to is None and dataset is None:
        raise ConfigError("where to? --to ORG/NAME publishes the policy, --dataset ORG/NAME the responses")
    for option, name in (("--to", to), ("--dataset", dataset)):
        if name is not None and (not hub.is_id(name) or "@" in name):
            raise ConfigError(f"{option} {name}: ORG/NAME is wanted, your own name or that of an organization first")
    paths = _complete(run)
    config = read_settings(paths.config)
    with TemporaryDirectory(dir=writable_home(), prefix=".publishing-") as scratch:
        uploads: list[tuple[hub.Kind, str, Path]] = []
        if to is not None:
            uploads.append(("model", to, _lay_out_policy(paths, config, to, Path(scratch, "model"))))
        if dataset is not None:
            uploads.append(("dataset", dataset, _lay_out_responses(paths, config, dataset, Path(scratch, "data"))))
        for kind, name, _ in uploads:
            hub.make_repository(kind, name, private)
        return [hub.upload(*each, _REPLACED[each[0]]) for each in uploads]


def _complete(run: str) -> RunPaths:
    paths = run_named(run)
    if not (paths.result.is_file() and is_policy(paths.policy)):
        raise ConfigError(f"{paths.root} is not complete: the command that began the run goes on with it")
    undamaged(run, paths.policy)
    return paths


def _lay_out_policy(paths: RunPaths, config: TrainingConfig, name: str, folder: Path) -> Path:
    """The files that belong to a policy, and its card with the name that it will have."""
    (folder / "adapter").mkdir(parents=True)
    for file in sorted({found for pattern in _SENT for found in paths.policy.glob(pattern)} - {paths.policy / DIGESTS}):
        (folder / file.relative_to(paths.policy)).symlink_to(file.absolute())
    adapter = folder / "adapter" / "adapter_config.json"
    if adapter.is_file():  # it may say in which folder its model lay
        facts = json.loads(adapter.read_text(encoding="utf-8"))
        start = start_model(config)
        facts["base_model_name_or_path"] = start if hub.is_id(start) else public(facts["base_model_name_or_path"])
        adapter.unlink()
        write_text(adapter, json.dumps(facts, indent=2, sort_keys=True) + "\n")
    card = paths.policy / "README.md"
    if not card.is_file():
        raise ConfigError(f"{card} is missing: a policy is published with its card; write it, or start the run anew")
    text = card.read_text(encoding="utf-8")
    _refuse_what_tells(config, paths.policy, folder)
    if start_model(config).endswith(stand_in.NAME) and stand_in.NAME not in text:
        raise ConfigError(
            f"{card} does not say that the training began with {stand_in.NAME}, whose weights were quantized once: "
            "name it there, so that nobody takes it for the model of the hub"
        )
    (folder / card.name).unlink()
    write_text(folder / card.name, text.replace(USED_AS, f'"{name}"'))
    return folder


def _lay_out_responses(paths: RunPaths, config: TrainingConfig, name: str, folder: Path) -> Path:
    """A file for each iteration, and the card."""
    (folder / "data").mkdir(parents=True)
    iterations, responses = read_json(paths.result)["iterations"], 0
    for iteration in range(1, iterations + 1):
        source = paths.rollouts(iteration)
        if not source.is_file() or not is_as_written(source):
            raise ConfigError(f"{source} is missing or damaged: put it back, or publish without --dataset")
        table = pq.read_table(source)
        if missing := set(SCHEMA.names) - set(table.column_names):
            raise ConfigError(f"{source} was written by an earlier version: it has no column {min(missing)!r}")
        reasons = pa.array([_public_reason(reason) for reason in table["verdict_reason"].to_pylist()], pa.string())
        table = table.set_column(table.column_names.index("verdict_reason"), "verdict_reason", reasons)
        table = table.select(SCHEMA.names)
        table = table.add_column(0, "iteration", pa.array([iteration] * table.num_rows, pa.int64()))
        pq.write_table(table, folder / f"data/iteration-{iteration:06d}.parquet", compression="zstd")
        responses += table.num_rows
    recorded = isinstance(config, OfflineConfig) and config.responses.source != SAMPLED
    source_name = config.responses.source if isinstance(config, OfflineConfig) and recorded else config.data.source
    card = data_card(
        name,
        config.run_id,
        config.algorithm.name,
        iterations,
        responses,
        start_of(config),
        data_name(source_name),
        recorded,
    )
    write_text(folder / "README.md", card)
    return folder


def _public_reason(reason: str | None) -> str | None:
    """Why a judge gave no verdict, without what its server has said, which may name folders and machines."""
    if reason is None or not (_ADDRESS.search(reason) or _PLACE.search(reason)):
        return reason
    answered = _ANSWERED.search(reason)
    return f"the judge's server {answered[0]}" if answered else "the judge's server failed"


def _refuse_what_tells(config: TrainingConfig, policy: Path, sent: Path) -> None:
    """Raises ConfigError for the first line that holds a path of this machine, the address of a server, or a secret.
    (Secrets are not shown.) Vocabularies hold all kinds of words: there only this machine's own folders are looked
    for."""
    secrets = {value for name, value in os.environ.items() if name.endswith(("TOKEN", "_KEY")) and len(value) > 7}
    told = {place for place in _strings(config.model_dump(mode="json")) if public(place) != place}
    told |= {str(place) for place in (home(), REPOSITORY, policy.absolute().parent) if len(place.parts) > 2}
    ours = re.compile("|".join(rf"{re.escape(place)}(?!\w)" for place in sorted(told)))
    for file in _texts(sent):
        for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
            where = f"{policy / file.relative_to(sent)}, line {number}"
            if _SECRET.search(line) or any(secret in line for secret in secrets):
                raise ConfigError(f"{where} holds a secret: take it out, and make a new one in its place")
            if found := ours.search(line) or (file.name not in _VOCABULARY and _PLACE.search(line)):
                raise ConfigError(
                    f"{where} holds {found[0]}, which tells of a machine: take it out, then publish again"
                )


def _strings(value: Any) -> Iterator[str]:
    """All texts in settings."""
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _strings(inner)


def _texts(folder: Path) -> Iterable[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file() and file.suffix != ".safetensors")
