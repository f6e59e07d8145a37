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
    card = ModelCard(model_card(config, 60, FIRST, LAST, "abc123"))
    assert card.data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct" and card.data.datasets == ["openai/gsm8k"]
    assert {"sgpo", "reinforcement-learning"} <= set(card.data.tags)
    assert "| gsm8k-short | 4 | 0.094 ± 0.013 | 0.125 ± 0.015 |" in card.text
    assert "first iteration 56% had no correct response, of the last 50%" in card.text
    assert f"after each problem stood `{config.model.instruction.strip()}`, the chat template was used" in card.text
    settings = card.text.split("```yaml\n")[1].split("```")[0]
    assert yaml.safe_load(settings) == yaml.safe_load(to_yaml(config))


def test_a_model_of_this_machine_is_called_by_its_name() -> None:
    config = load_run("tiny", ["model.warm_start=null", "model.path=/home/jane/models/mine", "algorithm=grpo"])
    card = ModelCard(model_card(config, 3, FIRST, LAST, "abc123"))
    said = card.text.split("<details>")[0]
    assert card.data.base_model is None and "trained from `mine` on `chains`" in said and "/home/jane" not in said
    assert "judge" not in said


def test_a_file_beside_us_is_no_id_of_the_hub() -> None:
    config = load_run("tiny", ["data.source=data/train.jsonl", "offline_start=tiny"])
    card = ModelCard(model_card(config, 3, FIRST, LAST, "abc123"))
    assert card.data.datasets is None and "on `train.jsonl`" in card.text
    assert "the policy of the offline run `tiny`, which began with the supervised start `tiny`" in card.text


def test_an_offline_policy_says_so() -> None:
    config = load_offline("tiny")
    card = ModelCard(model_card(config, 3, {}, {}, "abc123"))
    assert "on recorded responses" in card.text and "python -m flows.offline tiny KEY=VALUE" in card.text
    assert f"| chains | {config.eval.sets['chains'].k} | - | - |" in card.text
