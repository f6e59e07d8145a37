"""What a policy's README.md says; tests/flows/test_online.py finds it in the policy's folder."""

from __future__ import annotations

import yaml
from huggingface_hub import ModelCard

from sgpo_core.config.loading import to_yaml
from sgpo_core.config.offline import load_offline
from sgpo_core.config.run import load_run
from tasks.reports.model_card import model_card

FIRST = {"eval/gsm8k-short/avg_at_k": 0.094, "eval/gsm8k-short/avg_stderr": 0.0131, "group/all_negative_frac": 0.56}
LAST = {"eval/gsm8k-short/avg_at_k": 0.125, "eval/gsm8k-short/avg_stderr": 0.0149, "group/all_negative_frac": 0.5}


def test_it_has_scores_groups_prompt_and_settings() -> None:
    config = load_run("smol", ["model.warm_start=null", "model.path=HuggingFaceTB/SmolLM2-135M-Instruct@12fd25f77366"])
    card = ModelCard(model_card(config, 60, FIRST, LAST, "abc123", "0123456789"))
    assert card.data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct" and card.data.datasets == ["openai/gsm8k"]
    assert {"sgpo", "reinforcement-learning"} <= set(card.data.tags)
    assert "| gsm8k-short | 4 | 0.094 ± 0.013 | 0.125 ± 0.015 |" in card.text
    assert "first iteration 56% had no correct response, of the last 50%" in card.text
    assert f"after each problem stood `{config.model.instruction.strip()}`, the chat template was used" in card.text
    settings = card.text.split("```yaml\n")[1].split("```")[0]
    assert yaml.safe_load(settings) == yaml.safe_load(to_yaml(config))


def test_a_model_of_this_machine_is_called_by_its_name() -> None:
    config = load_run("tiny", ["model.warm_start=null", "model.path=/home/jane/models/mine", "algorithm=grpo"])
    card = ModelCard(model_card(config, 3, FIRST, LAST, "abc123", "0123456789"))
    said = card.text.split("<details>")[0]
    assert card.data.base_model is None and "trained from `mine` on `chains`" in said
    assert "/home/jane" not in card.text and "path: mine" in card.text
    assert "judge" not in said


def test_neither_folders_nor_servers_of_a_machine_are_told() -> None:
    overrides = ["judge=endpoint", "judge.endpoint.url=http://box-7:8000/v1", "cluster.sync_dir=/mnt/jane/sync"]
    card = model_card(load_run("tiny", overrides), 3, FIRST, LAST, "abc123", "0123456789")
    assert "box-7" not in card and "/mnt" not in card and "url: '...'" in card and "sync_dir: sync" in card


def test_the_curve_and_the_protocol() -> None:
    curve = {0: FIRST, 20: {}, 40: LAST}
    card = model_card(load_run("smol"), 40, FIRST, LAST, "abc123", "0123456789", curve)
    rows = ["| avg@k after iteration | gsm8k-short |", "| --- | --- |", "| 0 | 0.094 ± 0.013 |"]
    assert "\n".join([*rows, "| 20 | - |", "| 40 | 0.125 ± 0.015 |"]) in card and "protocol `0123456789`" in card


def test_a_supervised_start_names_its_model() -> None:
    card = ModelCard(model_card(load_run("smol", ["model=smol-q4_1"]), 3, {}, {}, "abc123", "0123456789"))
    assert "the supervised start `smol-q4_1` of `smollm2-135m-instruct-q4_1`" in card.text
    assert card.data.base_model is None
    card = ModelCard(model_card(load_run("smol"), 3, {}, {}, "abc123", "0123456789"))
    assert card.data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"


def test_a_tokenizer_that_has_to_be_given() -> None:
    card = model_card(load_run("tiny"), 3, {}, {}, "abc123", "0123456789", own_tokenizer=True)
    assert 'pipeline("text-generation", "policy", tokenizer=tokenizer)' in card


def test_a_file_beside_us_is_no_id_of_the_hub() -> None:
    config = load_run("tiny", ["data.source=data/train.jsonl", "offline_start=tiny"])
    card = ModelCard(model_card(config, 3, FIRST, LAST, "abc123", "0123456789"))
    assert card.data.datasets is None and "on `train.jsonl`" in card.text
    assert "the policy of the offline run `tiny`, which began with the supervised start `tiny`" in card.text


def test_an_offline_policy_says_so() -> None:
    config = load_offline("tiny")
    card = ModelCard(model_card(config, 3, {}, {}, "abc123", "0123456789"))
    assert "on recorded responses" in card.text and "python -m flows.offline tiny KEY=VALUE" in card.text
    assert f"| chains | {config.eval.sets['chains'].k} | - | - |" in card.text
