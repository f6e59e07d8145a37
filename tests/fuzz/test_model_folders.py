"""The small files of a model's folder, whatever is in them: the folder can be the policy, or is refused in words."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgpo_core.config.base import ConfigError
from sgpo_core.config.data import ModelSettings
from sgpo_core.config.training import ClusterSettings
from tasks.data import load_tokenizer
from tasks.models.policy_checks import check_policy
from tests.fuzz.hostile import values
from tests.small_models import save_small_model

INDEX = "model.safetensors.index.json"
NAMES = {
    "config.json": (
        *(
            "architectures",
            "dtype",
            "eos_token_id",
            "head_dim",
            "hidden_act",
            "hidden_size",
            "layer_types",
            "model_type",
        ),
        *("max_position_embeddings", "num_attention_heads", "num_key_value_heads", "rope_parameters", "rope_scaling"),
        *("sliding_window", "tie_word_embeddings", "vocab_size", "auto_map", "quantization_config", "text_config"),
    ),
    "generation_config.json": ("eos_token_id", "temperature"),
    "tokenizer_config.json": ("eos_token", "chat_template", "auto_map", "added_tokens_decoder", "tokenizer_class"),
    INDEX: ("weight_map", "metadata"),
}
_odd = [
    None,
    0,
    1,
    -1,
    2**40,
    1.5,
    "x",
    "",
    [],
    {},
    ["a"],
    [1],
    {"a": 1},
    {"a": "../x"},
    True,
    float("nan"),
    "{{ 1/0 }}",
]
_values = st.sampled_from(_odd) | values


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_small_model(tmp_path_factory.mktemp("whole"), "qwen3")
    (folder / INDEX).write_text('{"weight_map": {"a": "model.safetensors"}}')
    check_policy("model.path=it", folder, ModelSettings(chat_template=True), ClusterSettings())
    return folder


@given(st.data(), st.sampled_from(sorted(NAMES)))
def test_any_value_in_a_small_file(whole: Path, data: st.DataObject, name: str) -> None:
    changes: Any = data.draw(st.dictionaries(st.sampled_from(NAMES[name]), _values, min_size=1, max_size=2) | _values)
    before = json.loads((whole / name).read_text())
    folder = whole.with_name("changed")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    (folder / name).write_text(json.dumps({**before, **changes} if isinstance(changes, dict) else changes))
    load_tokenizer.cache_clear()
    logging.disable()  # transformers warns of what it does not know
    try:
        check_policy("model.path=it", folder, ModelSettings(chat_template=True), ClusterSettings())
    except ConfigError as error:
        assert str(error).startswith("model.path=it can't be the policy: ")
    finally:
        logging.disable(logging.NOTSET)
        load_tokenizer.cache_clear()
