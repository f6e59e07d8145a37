"""What a folder of adapters says of the model that they belong to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sgpo_core.config.data import LoraSettings
from tasks.workers.lora import write_config

REVISION = "a09a35458c702b33eeacc393d103063234e8bc28"


@pytest.mark.parametrize(
    ("policy", "name", "revision"),
    [
        (f"/cache/hub/models--Qwen--Qwen2.5-7B-Instruct/snapshots/{REVISION}", "Qwen/Qwen2.5-7B-Instruct", REVISION),
        ("/home/me/runs/warm-starts/smol-1", "/home/me/runs/warm-starts/smol-1", None),
    ],
)
def test_the_base_of_adapters_is_what_was_loaded(tmp_path: Path, policy: str, name: str, revision: str | None) -> None:
    write_config(LoraSettings(rank=8, alpha=16), policy, str(tmp_path))
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (written["base_model_name_or_path"], written["revision"]) == (name, revision)
    assert (written["r"], written["lora_alpha"], written["peft_type"]) == (8, 16, "LORA")
