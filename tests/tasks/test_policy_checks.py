"""What is wrong with a policy is said before any engine starts: each fault with its name and its fix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from sgpo_core.config.base import ConfigError
from sgpo_core.config.data import ModelSettings
from sgpo_core.config.evaluation import load_evaluation
from sgpo_core.config.judge_training import load_judge_training
from sgpo_core.config.offline import load_offline
from sgpo_core.config.run import load_run
from sgpo_core.config.training import ClusterSettings
from sgpo_core.config.warm_start import load_warm_start
from tasks.benchmarks.evaluate import jobs, model_settings
from tasks.data import PolicyCodec, load_tokenizer, stop_ids
from tasks.models import policy_checks
from tasks.models.policy_checks import check_policy, context_length
from tasks.preflight import check_resources
from tasks.tracking.policies import Policy
from tests.helpers import run_module, start_from
from tests.small_models import CONTEXT, edit_json, save_small_model

CHAT = ModelSettings(chat_template=True)
CPU, GPU = ClusterSettings(), ClusterSettings(rollout_gpus=1)


def refusal(folder: Path, model: ModelSettings = CHAT, cluster: ClusterSettings = CPU, **more: Any) -> str:
    """Why the folder can't be the policy; "" where it can."""
    try:
        check_policy("model.path=it", folder, model, cluster, **more)
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("architecture", ["llama-tied", "llama-untied", "qwen3", "gemma2-uncapped", "gemma3", "phi3"])
def test_whole_models_pass(tmp_path: Path, architecture: str) -> None:
    assert refusal(save_small_model(tmp_path, architecture, spare_rows=20)) == ""


def test_the_embedded_policy_passes(tmp_path: Path) -> None:
    from sgpo_core.chains.policy import save_random_policy

    save_random_policy(load_warm_start("tiny"), tmp_path)
    assert refusal(tmp_path, ModelSettings()) == ""
    assert "model.chat_template=true: set model.chat_template=false" in refusal(tmp_path)


def as_pickle(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def cut(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def without_a_shard(folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="100KB")
    assert refusal(folder) == "", "all shards are there"
    (folder / "model-00003-of-00005.safetensors").unlink()


def with_more_tokens(folder: Path) -> None:
    tokenizer = load_tokenizer(str(folder))
    tokenizer.add_tokens(["<step>", "<box>"])
    tokenizer.save_pretrained(folder)


def with_head_bias(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "lm_head.bias": torch.zeros(320)}, folder / "model.safetensors", metadata={"format": "pt"})


def with_another_head(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    embedding = tensors["model.embed_tokens.weight"]
    save_file({**tensors, "lm_head.weight": embedding.clone()}, folder / "model.safetensors", metadata={"format": "pt"})
    assert refusal(folder) == "", "the same tensor twice is no other head"
    save_file({**tensors, "lm_head.weight": embedding + 1}, folder / "model.safetensors", metadata={"format": "pt"})


def removed(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def written(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def edited(name: str, **changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / name, **changes)


@pytest.mark.parametrize(
    ("spoil", "said", "fix"),
    [
        (as_pickle, "no weights in safetensors format (found pytorch_model.bin, a pickle", "save_pretrained"),
        (removed("model.safetensors"), "no weights in safetensors format: ", "save_pretrained"),
        (cut, "model.safetensors can't be read", "download it anew"),
        (without_a_shard, "model-00003-of-00005.safetensors is not there", "download the folder anew"),
        (written("config.json", "{"), "config.json can't be read", "correct it"),
        (edited("config.json", model_type="mine"), "config.json can't be read (", "correct it"),
        (
            edited("config.json", model_type="mine", auto_map={"AutoConfig": "mine.Mine"}),
            "brings code of its own (auto_map)",
            "correct it",
        ),
        (written("generation_config.json", "["), "generation_config.json can't be read", "correct it"),
        (removed("tokenizer.json"), "no tokenizer.json", "AutoTokenizer"),
        (written("tokenizer.json", "{}"), "tokenizer.json can't be read", "correct it"),
        (removed("chat_template.jinja"), "no chat template, and model.chat_template=true", "chat_template.jinja"),
        (written("chat_template.jinja", "{{ raise_exception('no') }}"), "(no)", "model.chat_template=false"),
        (edited("tokenizer_config.json", eos_token=None), "no token that ends a text", "eos_token in tokenizer_config"),
        (with_more_tokens, "up to token 321 (<box>), and its embedding has 320 rows", "resize_token_embeddings"),
        (
            edited("config.json", vocab_size=400),
            "embedding has 320 rows, and config.json says vocab_size=400",
            "correct",
        ),
        (edited("generation_config.json", eos_token_id=[2, 320]), "names token 320 as eos_token_id", "correct"),
        (edited("config.json", final_logit_softcapping=30.0), "final_logit_softcapping=30.0", "another model"),
        (edited("config.json", resid_pdrop=0.1), "resid_pdrop=0.1", "set it to 0 in config.json"),
        (edited("config.json", quantization_config={"quant_method": "awq"}), "weights are quantized", "came from"),
        (
            with_another_head,
            "(tie_word_embeddings=true), and its weights hold another one",
            "tie_word_embeddings=false",
        ),
        (with_head_bias, "output layer has a bias", "another model"),
        # values of another type than their name has
        (written("generation_config.json", "[]"), "a value in config.json, generation_config.json", "correct it"),
        (edited("generation_config.json", eos_token_id="x"), "is none that can be there (TypeError: ", "correct it"),
        (written("model.safetensors.index.json", '{"weight_map": null}'), "is none that can be there", "correct it"),
        (edited("config.json", text_config=0.5), "is none that can be there", "correct it"),
    ],
)
def test_a_fault_is_named_with_its_fix(tmp_path: Path, spoil: Callable[[Path], object], said: str, fix: str) -> None:
    folder = save_small_model(tmp_path)
    spoil(folder)
    load_tokenizer.cache_clear()  # spoiling may have read it
    found = refusal(folder)
    assert found.startswith("model.path=it can't be the policy: ")
    assert said in found and fix in found.partition(said)[2], found
    assert "; " not in found, "no fault brings others"


def test_all_faults_are_named_together(tmp_path: Path) -> None:
    folder = save_small_model(tmp_path)
    edit_json(folder / "tokenizer_config.json", eos_token=None)
    (folder / "chat_template.jinja").unlink()
    found = refusal(folder, ModelSettings(chat_template=True, max_length=CONTEXT + 1))
    assert found.count("; ") == 2
    assert "model.max_length=257 is over the 256 tokens" in found and "lower model.max_length" in found
    assert "eos_token" in found and "model.chat_template" in found
    assert refusal(folder, ModelSettings(max_length=CONTEXT)).count("; ") == 0, "the template is not asked for"


def test_the_length_goes_by_the_setting_s_own_name(tmp_path: Path) -> None:
    found = refusal(save_small_model(tmp_path), ModelSettings(max_length=999), length="max_length")
    assert "max_length=999" in found and "model.max_length" not in found


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, CONTEXT),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}}, 4 * CONTEXT),
        (  # already reached by what max_position_embeddings says
            {
                "rope_parameters": {
                    "rope_type": "yarn",
                    "rope_theta": 1e4,
                    "factor": 4.0,
                    "original_max_position_embeddings": 64,
                }
            },
            CONTEXT,
        ),
    ],
)
def test_the_context_is_vllm_s(tmp_path: Path, changes: dict[str, Any], expected: int) -> None:
    folder = save_small_model(tmp_path)
    edit_json(folder / "config.json", **changes)
    assert context_length(folder) == expected


def test_sizes_of_heads_matter_on_the_cpu_alone(tmp_path: Path) -> None:
    folder = save_small_model(tmp_path, head_dim=16)
    assert "heads have size 16" in refusal(folder) and "cluster.rollout_gpus" in refusal(folder)
    assert refusal(folder, cluster=GPU) == ""


def test_what_is_only_to_generate_may_be_what_the_trainer_lacks(tmp_path: Path) -> None:
    folder = save_small_model(tmp_path, "gemma2")
    assert "attn_logit_softcapping=50.0" in refusal(folder) and "final_logit_softcapping=30.0" in refusal(folder)
    assert refusal(folder, trained=False) == ""


@pytest.mark.parametrize("architecture", ["gemma3", "phi3"])
def test_windows_are_for_the_engines_alone(tmp_path: Path, architecture: str) -> None:
    folder = save_small_model(tmp_path, architecture, sliding_window=100)
    assert refusal(folder, ModelSettings(max_length=100)) == ""
    found = refusal(folder, ModelSettings(max_length=101))
    assert "window of 100 tokens" in found and "model.max_length=101 is over it" in found
    assert refusal(folder, ModelSettings(max_length=101), trained=False) == ""


def test_a_window_that_no_layer_has_is_none(tmp_path: Path) -> None:
    full = ["full_attention", "full_attention"]
    folder = save_small_model(tmp_path, "gemma3", sliding_window=100, layer_types=full)
    assert refusal(folder, ModelSettings(max_length=101)) == ""


def test_no_padding_token_is_no_fault(tmp_path: Path) -> None:
    folder = save_small_model(tmp_path)
    edit_json(folder / "tokenizer_config.json", pad_token=None)
    assert load_tokenizer(str(folder)).pad_token_id is None and refusal(folder) == ""


def test_ends_are_the_tokenizer_s_and_the_generation_config_s(tmp_path: Path) -> None:
    folder = save_small_model(tmp_path)
    edit_json(folder / "generation_config.json", eos_token_id=[0, 5])
    edit_json(folder / "config.json", eos_token_id=7)
    assert stop_ids(str(folder)) == [0, 2, 5]
    (folder / "generation_config.json").unlink()
    assert stop_ids(str(folder)) == [2, 7]


def test_recorded_token_ids_may_be_rows_without_a_token(tmp_path: Path) -> None:
    codec = PolicyCodec(str(save_small_model(tmp_path, spare_rows=20)), CHAT)
    assert len(codec.tokenizer) == 320 and codec.vocabulary == 340
    [ids] = codec.encode(["Step 1"])
    assert codec.decode([[*ids, 339]]) == ["Step 1"]


def test_every_flow_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each in the name of its own setting."""
    from flows import judge_training, starting, warm_start

    folder = save_small_model(tmp_path)
    (folder / "chat_template.jinja").unlink()
    edit_json(folder / "tokenizer_config.json", eos_token=None)
    chat, path = "model.chat_template=true", f"model.path={folder}"

    with pytest.raises(ConfigError, match=r"^model\.path=.*no chat template"):
        starting.initial_policy(load_offline("tiny", [*start_from(str(folder)), chat]))
    with pytest.raises(ConfigError, match=r"^model\.path=.*no chat template"):
        warm_start.make(load_warm_start("tiny", [path, chat]))
    with pytest.raises(ConfigError, match=r"^base=.*eos_token.*"):
        judge_training.make(load_judge_training("tiny", [f"base={folder}"]))
    evaluation = load_evaluation(["eval=chains"])
    with pytest.raises(ConfigError, match=r"^POLICY=mine .*eos_token"):
        model_settings(evaluation, jobs(evaluation, Policy("mine", str(folder), "")))
    monkeypatch.setattr(warm_start, "ready", lambda *_: str(folder))
    with pytest.raises(ConfigError, match=r"^model\.warm_start=tiny .*no chat template"):
        starting.initial_policy(load_run("tiny", [chat]))


def test_the_short_list_of_causal_models_is_part_of_transformers_own() -> None:
    assert set(policy_checks._CAUSAL) <= set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def test_a_run_is_refused_before_anything_starts(tmp_path: Path) -> None:
    folder = save_small_model(tmp_path / "model")
    (folder / "chat_template.jinja").unlink()
    settings = [*start_from(str(folder)), "model.chat_template=true"]
    with pytest.raises(ConfigError, match=r"model\.path=.*no chat template.*model\.chat_template=false"):
        check_resources(load_run("tiny", settings))
    done = run_module("flows.online", "tiny", *settings, home=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert "no chat template" in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.glob("sgpo"))
