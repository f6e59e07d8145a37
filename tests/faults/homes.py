"""Are two homes (SGPO_HOME) the same? Everything that a flow writes there and reads again, and what MLflow was told."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from mlflow.entities import Experiment, Run, ViewType

from tests.helpers import CLOCKS

# Of services, for people alone, or copies of what is elsewhere (registry: of what a server of MLflow holds).
_NOT_COMPARED = ("mlflow.db", "mlartifacts/", "prefect/", "services/", "cache/", "datasets/", "registry/")
_COMPARED = (".parquet", ".json", ".jsonl", ".safetensors", ".arrow", ".yaml", ".jinja")
_PARTS = "generations"
# Keys of records that differ from run to run.
_ITS_OWN = re.compile(r"digest|seconds|time|timestamp(_ms)?|began|attempt|mlflow_run_id|run_dir|report|version")


def differences_of_homes(one: Path, two: Path) -> list[str]:
    """What is in one of two homes and not, or otherwise, in the other; [] where nothing."""
    files, others = dict(_files(one)), dict(_files(two))
    found = [f"{name}: only in {one.name}" for name in sorted(files.keys() - others.keys())]
    found += [f"{name}: only in {two.name}" for name in sorted(others.keys() - files.keys())]
    found += [name for name in sorted(files.keys() & others.keys()) if files[name] != others[name]]
    return found + _told_otherwise(one, two)


def _files(home: Path) -> Iterator[tuple[str, str]]:
    """The name and the content, as a digest, of what lies in a home; hidden files are locks and notes."""
    for file in sorted(home.rglob("*")):
        name = str(file.relative_to(home))
        hidden = any(part.startswith(".") for part in file.relative_to(home).parts)
        if not file.is_file() or hidden or name.startswith(_NOT_COMPARED):
            continue
        if file.suffix in _COMPARED and file.name != "digests.json" and file.parent.name != _PARTS:
            yield name, xxhash.xxh3_128_hexdigest(_content(file, home))
    for folder in sorted(home.rglob(_PARTS)):  # each part has what was complete when it was written
        parts = pa.concat_tables([pq.read_table(part) for part in sorted(folder.glob("*.parquet"))])
        table = parts.sort_by([("number", "ascending"), ("sample", "ascending")])
        yield str(folder.relative_to(home)), xxhash.xxh3_128_hexdigest(_bytes(table))


def _content(file: Path, home: Path) -> bytes:
    if file.suffix == ".parquet":
        return _bytes(pq.read_table(file))
    if file.suffix == ".json":
        return json.dumps(_lasting(json.loads(file.read_bytes())), sort_keys=True).replace(str(home), "").encode()
    return file.read_bytes().replace(str(home).encode(), b"")


def _bytes(table: pa.Table) -> bytes:
    """Of a table, but for what was known to the judge from a run that was cut short."""
    table = table.drop_columns([name for name in table.column_names if name in ("verdict_cached", "cached")])
    with pa.BufferOutputStream() as sink, pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table.combine_chunks())
    return bytes(sink.getvalue())


def _lasting(value: Any) -> Any:
    """A record without what differs from run to run."""
    if isinstance(value, dict):
        return {k: _lasting(v) for k, v in value.items() if not k.startswith(CLOCKS) and not _ITS_OWN.fullmatch(k)}
    return [_lasting(v) for v in value] if isinstance(value, list) else value


def _told_otherwise(one: Path, two: Path) -> list[str]:
    """Runs that MLflow knows of one home alone, or of which it was told something else, or something twice."""
    runs, others = (Counter(_runs(home)) for home in (one, two))
    return [f"MLflow: {what}" for what in sorted((runs - others).keys() | (others - runs).keys())]


def _runs(home: Path) -> Iterator[str]:
    """Each run in words: its name, state, and a digest of every point of its metrics."""
    client = mlflow.MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    experiments: list[Experiment] = client.search_experiments()
    for experiment in experiments:
        for run in client.search_runs([experiment.experiment_id], run_view_type=ViewType.ACTIVE_ONLY):
            yield f"{experiment.name}/{run.info.run_name} {run.info.status} {_history(client, run)}"


def _history(client: mlflow.MlflowClient, run: Run) -> str:
    keys = sorted(key for key in run.data.metrics if not key.startswith((*CLOCKS, "system/")))
    points = [(key, p.step, p.value) for key in keys for p in client.get_metric_history(run.info.run_id, key)]
    return xxhash.xxh3_64_hexdigest(repr(sorted(points)).encode())
