"""Problem sets of a run, prompts, and what ends a response."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sgpo_core.chains.policy import save_random_policy
from sgpo_core.config.base import ConfigError
from sgpo_core.config.data import ModelSettings
from sgpo_core.config.run import load_run
from sgpo_core.config.warm_start import WarmStartConfig
from sgpo_core.types import Problem
from tasks.data import PolicyCodec, encode_prompt, load_benchmarks, load_problem_sets, load_tokenizer, stop_ids
from tasks.evaluation import check_benchmarks


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("policy")
    save_random_policy(WarmStartConfig(), path)
    return path


def problems(path: Path, *prompts: str) -> str:
    path.write_text("".join(json.dumps({"problem": prompt, "answer": "1"}) + "\n" for prompt in prompts))
    return str(path)


def test_problems_that_are_trained_on_are_no_benchmark(tmp_path: Path) -> None:
    train = problems(tmp_path / "train.jsonl", "How many are 2 + 3?", "And 2 - 3?", "And 4?")

    def sets(*prompts: str) -> None:
        test = problems(tmp_path / "test.jsonl", *prompts)
        settings = ["data=file", f"data.source={train}", "eval=file", f"eval.sets.file.data.source={test}"]
        load_problem_sets(load_run("tiny", [*settings, "sampling.problems=2"]))

    sets("And 2 + 3?", "How many are 2 - 3?")
    with pytest.raises(ConfigError, match=r"1 of the 2 problems of benchmark file are trained on .*train.jsonl"):
        sets("And 5?", "how  many are\n2 + 3?")


@pytest.mark.parametrize(("named", "ends"), [(None, [1]), (1, [1]), ([5, 3], [1, 3, 5])])
def test_the_generation_config_names_more_tokens_that_end_a_response(
    folder: Path, tmp_path: Path, named: int | list[int] | None, ends: list[int]
) -> None:
    copy = tmp_path / "policy"
    shutil.copytree(folder, copy)
    (copy / "generation_config.json").write_text(json.dumps({"eos_token_id": named}))
    assert load_tokenizer(str(copy)).eos_token_id == 1
    assert stop_ids(str(copy)) == ends
    (copy / "generation_config.json").unlink()
    assert stop_ids(str(copy)) == [1]


def test_a_prompt_stands_between_preamble_and_instruction(folder: Path) -> None:
    tokenizer = load_tokenizer(str(folder))
    model = ModelSettings(preamble="Compute 1 + 2.\nAnswer: \\boxed{3}\n", instruction="\n")
    ids = encode_prompt(tokenizer, Problem("p", "Compute 4 + 5.", "9"), model)
    assert tokenizer.decode(ids) == "Compute 1 + 2.\nAnswer: \\boxed{3}\nCompute 4 + 5.\n"


def test_a_plain_text_begins_as_the_tokenizer_begins_it(folder: Path, tmp_path: Path) -> None:
    """Base models of Llama and Gemma have seen no text without that token."""
    copy, problem = tmp_path / "policy", Problem("", "1 + 2", "3")
    shutil.copytree(folder, copy)
    plain = encode_prompt(load_tokenizer(str(folder)), problem, ModelSettings())
    settings = json.loads((copy / "tokenizer.json").read_text())
    first = {"SpecialToken": {"id": "<pad>", "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    settings["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [first, text],
        "pair": [first, text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<pad>": {"id": "<pad>", "ids": [0], "tokens": ["<pad>"]}},
    }
    (copy / "tokenizer.json").write_text(json.dumps(settings))
    named = json.loads((copy / "tokenizer_config.json").read_text()) | {"bos_token": "<pad>"}
    (copy / "tokenizer_config.json").write_text(json.dumps(named))
    tokenizer = load_tokenizer(str(copy))
    assert encode_prompt(tokenizer, problem, ModelSettings()) == [0, *plain]
    assert encode_prompt(tokenizer, problem, ModelSettings(preamble="<pad>")) == [0, *plain], "it stands there already"
    assert PolicyCodec(str(copy), ModelSettings()).prompts(["1 + 2"]) == [[0, *plain]]


def test_a_template_is_told_whether_to_think(folder: Path, tmp_path: Path) -> None:
    copy, problem = tmp_path / "policy", Problem("", "1 + 2", "3")
    shutil.copytree(folder, copy)
    template = "{{ messages[0].content }}{% if enable_thinking is defined and not enable_thinking %} = {% endif %}"
    (copy / "chat_template.jinja").write_text(template)
    tokenizer = load_tokenizer(str(copy))

    def text(thinks: bool | None) -> str:
        ids = encode_prompt(tokenizer, problem, ModelSettings(chat_template=True, thinks=thinks))
        return tokenizer.decode(ids)

    assert text(None) == text(True) == "1 + 2" and text(False) == "1 + 2 = "


def test_a_problem_of_a_benchmark_that_is_too_long_is_refused_with_its_set(folder: Path, tmp_path: Path) -> None:
    source = problems(tmp_path / "test.jsonl", "1 + 2", "1 + 2 " * 100)
    config = load_run("tiny", ["eval=file", f"eval.sets.file.data.source={source}"])
    with pytest.raises(
        ConfigError, match=r"eval\.sets\.file\.data\.source=.*test\.jsonl: problem .* model\.max_length="
    ):
        check_benchmarks(config, str(folder), load_benchmarks(config.eval.sets))
