"""What of ours loads from the Hugging Face hub, and repositories as the hub has them, of a few KB."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save

from sgpo_core.config.data import DataSettings
from sgpo_core.config.offline import ColumnSettings, ResponsesSettings
from sgpo_core.data.problems import load_problems
from sgpo_core.judges import processbench
from sgpo_core.offline.sources import read_batches
from sgpo_core.storage.weights import weights_hash
from tasks.models.folders import model_folder
from tasks.tracking.policies import resolve
from tests.helpers import REPOSITORY
from tests.loopback_hub import Files

SAMPLE = REPOSITORY / "tests/data/gsm8k-sample"
UNWANTED = {"pytorch_model.bin", "modeling_tiny.py", "model.gguf", "onnx/model.onnx"}
LLAMA = {"model_type": "llama", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 64}
README = """---
configs:
- config_name: main
  data_files: [{split: train, path: main/train-*}, {split: test, path: main/test-*}]
- config_name: socratic
  data_files: [{split: train, path: socratic/train-*}]
---
"""


@dataclass(frozen=True)
class Source:
    """Something of ours that loads from the hub. `load` takes a revision and gives `content(number)` of a commit with
    `files(number)`. Every error begins with `setting` and says `instead`, for who has no hub."""

    kind: str
    name: str
    setting: str
    instead: str
    large: str  # its file on the other host, if it has one
    files: Callable[[int], Files]
    load: Callable[[str | None], Any]
    content: Callable[[int], Any]


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (SAMPLE / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def parquet(rows: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


def model(number: int) -> Files:
    """A Llama of a few KB, and what else lies in repositories."""
    weights = np.random.default_rng(number).normal(size=(64, 16)).astype(np.float32)
    return {
        "config.json": json.dumps({**LLAMA, "seed": number}).encode(),
        "tokenizer.json": b"{}",
        "model.safetensors": save({"model.embed_tokens.weight": weights}),
        **dict.fromkeys(UNWANTED, b"never wanted"),
    }


def gsm8k(number: int) -> Files:
    """GSM8K's form: configurations, and a file a split. Later commits have fewer rows."""
    train, test = lines("train")[number:], lines("test")[number:]
    return {
        "README.md": README.encode(),
        "main/train-00000-of-00001.parquet": parquet(train),
        "main/test-00000-of-00001.parquet": parquet(test),
        "socratic/train-00000-of-00001.parquet": parquet([{**row, "answer": "Why? " + row["answer"]} for row in train]),
    }


def process_bench(number: int) -> Files:
    """ProcessBench's form: an array of objects for each split."""
    rows = json.dumps(lines("processbench")[number:]).encode()
    parts = "".join(f"  - {{split: {name}, path: {name}.json}}\n" for name in processbench.HUB_SUBSETS)
    readme = f"---\nconfigs:\n- config_name: default\n  data_files:\n{parts}---\n".encode()
    return {
        "README.md": readme,
        **{f"{name}.json": rows.replace(b"gsm8k-", f"{name}-".encode()) for name in processbench.HUB_SUBSETS},
    }


def at(name: str, revision: str | None) -> str:
    return f"{name}@{revision}" if revision else name


def load_weights(revision: str | None) -> bytes:
    return (model_folder("model.path", at("org/tiny", revision)) / "model.safetensors").read_bytes()


def load_questions(revision: str | None, **settings: Any) -> list[str]:
    chosen = {"source": "openai/gsm8k", "subset": "main", "problem_column": "question", **settings}
    return load_problems(DataSettings(revision=revision, **chosen), Path(os.environ["SGPO_HOME"]) / "datasets")[
        "prompt"
    ][:]


def load_solutions(revision: str | None) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processbench, "HUB_REVISION", revision)
        return [example.id for example in processbench.load("Qwen/ProcessBench/gsm8k")]


def load_responses(revision: str | None) -> list[str]:
    columns = ColumnSettings(problem_id="question", prompt="question", answer="answer", response="answer")
    settings = ResponsesSettings(source="org/lines", revision=revision, columns=columns)
    return [text for batch in read_batches(settings) for text in batch.table["prompt"].to_pylist()]


def hash_of_files(number: int) -> str:
    folder = Path(os.environ["SGPO_HOME"]) / f"original-{number}"
    folder.mkdir(exist_ok=True)
    for name, data in model(number).items():
        if name not in UNWANTED:
            (folder / name).write_bytes(data)
    return weights_hash(folder)


def questions(number: int) -> list[str]:
    return [row["question"] for row in lines("train")[number:]]


MODEL = Source(
    *(
        "models",
        "org/tiny",
        "model.path=org/tiny",
        "folder (config.json, *.safetensors, tokenizer files) at {home}/models/org--tiny",
    ),
    *("model.safetensors", model, load_weights, lambda number: model(number)["model.safetensors"]),
)
GSM8K = Source(
    *(
        "datasets",
        "openai/gsm8k",
        "data.source=openai/gsm8k",
        "at {home}/datasets/openai--gsm8k--main--train.jsonl or .parquet",
    ),
    *("main/train-00000-of-00001.parquet", gsm8k, load_questions, questions),
)
SOURCES = {
    "model": MODEL,
    "policy": Source(
        *("models", "org/tiny", "POLICY=org/tiny", MODEL.instead, "model.safetensors", model),
        *(lambda revision: resolve(at("org/tiny", revision)).weights, hash_of_files),
    ),
    "problems": GSM8K,
    "processbench": Source(
        *(
            "datasets",
            "Qwen/ProcessBench",
            "data.path=Qwen/ProcessBench",
            "copy the set's files (gsm8k.json, math.json,",
        ),
        *("", process_bench, load_solutions, lambda number: [row["id"] for row in lines("processbench")[number:]]),
    ),
    "responses": Source(
        *("datasets", "org/lines", "responses.source=org/lines", "name a local file or folder instead", ""),
        *(
            lambda number: {
                "data/train.jsonl": "".join(json.dumps(r) + "\n" for r in lines("train")[number:]).encode()
            },
        ),
        *(load_responses, questions),
    ),
}
