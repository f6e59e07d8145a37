"""The engines in which trained judges run: verdicts by structured output, whatever the batch."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from transformers import AutoTokenizer

from sgpo_core.chains import problems as chains
from sgpo_core.config.base import ConfigError
from sgpo_core.config.judge import JudgeEngineSettings, JudgeSettings
from sgpo_core.judges.base import Item
from sgpo_core.judges.chat import ChatReply, ChatRequest, Message
from sgpo_core.judges.prompted import PromptedJudge
from sgpo_core.judges.prompts import PROMPTS, choices
from sgpo_core.judges.rule import rule
from sgpo_core.judges.training_examples import chains_label
from tasks.engines.judge_engines import JudgeEngines, judge_engines
from tasks.workers.judge_worker import JudgeWorker
from tests.small_models import save_small_model

ENGINE = JudgeEngineSettings(actors=1, max_num_seqs=32, kv_cache_mib=64)


@pytest.fixture(scope="module")
def judge_actors(trained_judge: str) -> Iterator[JudgeEngines]:
    yield judge_engines(trained_judge, ENGINE)


def items(count: int) -> list[Item]:
    """Right solutions, and such that forget every carry."""
    import random

    problems = chains.make_problems(count, seed=11)
    texts = [
        chains.solve(*operands, random.Random(0), slip_rate=float(i % 2)).text
        for i, p in enumerate(problems)
        if (operands := chains.operands(p.prompt))
    ]
    return [chains_label(p, text).item for p, text in zip(problems, texts, strict=True)]


def requests(count: int, temperature: float = 0.0) -> list[ChatRequest]:
    return [
        ChatRequest(PROMPTS["marker-v1"].messages(item, False, 0), 32, temperature, i, choices(len(item.steps)))
        for i, item in enumerate(items(count))
    ]


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_a_reply_is_one_of_the_choices_and_its_request_alone_decides_it(
    judge_actors: JudgeEngines, temperature: float
) -> None:
    asked = requests(24, temperature)
    together = judge_actors(asked)
    assert all(reply.text in request.choices for reply, request in zip(together, asked, strict=True))
    assert [judge_actors([request])[0] for request in asked[::-1]][::-1] == together
    assert {reply.completion_tokens for reply in together} == {2}  # the verdict and the end
    # "Compute ", 6 digits, " + ", 6 digits, ".\n", "Response:\n"; 6 steps of 9 or 10 tokens; the answer's 9 or 10
    # with its newline; the marker.
    assert all(16 + 6 * 9 + 9 + 1 <= reply.prompt_tokens <= 16 + 6 * 10 + 10 + 1 for reply in together)


def test_choices_bind_where_the_model_would_say_something_else(judge_actors: JudgeEngines) -> None:
    [request] = requests(1)
    never = ChatRequest(request.messages, 8, choices=("7 + 7", "}"))
    assert judge_actors([never])[0].text in never.choices


def test_a_prompt_that_is_too_long_is_an_error_of_its_own(judge_actors: JudgeEngines) -> None:
    long = ChatRequest((Message("user", "1" * 300),), 8)
    first, second, third = judge_actors([requests(1)[0], long, requests(1)[0]])
    assert second == ChatReply("", error="prompt of 300 tokens, judge.engine.max_length allows 256")
    assert first == third and not first.error


def test_threads_share_the_engines(judge_actors: JudgeEngines) -> None:
    asked = requests(16)
    parts = [asked[i : i + 4] for i in range(0, 16, 4)]
    with ThreadPoolExecutor(4) as pool:
        assert [reply for part in pool.map(judge_actors, parts) for reply in part] == judge_actors(asked)


def test_a_call_does_not_wait_for_the_longer_replies_of_another(judge_actors: JudgeEngines) -> None:
    """A long reply is under way when a short one is asked for; it comes first."""
    [short] = requests(1)
    lengthy = replace(short, max_tokens=140, choices=("1" * 120,))
    ended: list[str] = []

    def ask(name: str, request: ChatRequest) -> ChatReply:
        [reply] = judge_actors([request])
        ended.append(name)
        return reply

    with ThreadPoolExecutor(2) as pool:
        long = pool.submit(ask, "long", lengthy)
        time.sleep(0.02)
        assert pool.submit(ask, "short", short).result() == judge_actors([short])[0]
    assert long.result().completion_tokens > 100 and ended == ["short", "long"]


def test_an_engine_that_fails_says_so_to_all_who_wait_and_goes_on(judge_actors: JudgeEngines) -> None:
    """(By a fault that is put into the actor: a real one ends its process.)"""

    def break_once(worker: Any) -> None:
        step = worker.engine.step

        def broken() -> None:
            worker.engine.step = step
            raise ArithmeticError("on purpose")

        worker.engine.step = broken

    asked = requests(4)
    before = judge_actors(asked)
    ray.get(judge_actors.actors[0].__ray_call__.remote(break_once))
    with pytest.raises(ArithmeticError, match="on purpose"):
        judge_actors(asked)
    assert judge_actors(asked) == before


def test_the_judge_has_learnt_to_judge(judge_actors: JudgeEngines) -> None:
    """Far better than one of eight verdicts at random, though its training was short."""
    settings = JudgeSettings(name="trained", model="-", prompt="marker-v1", reference=False)
    judged = items(100)
    mine = PromptedJudge(judge_actors, PROMPTS["marker-v1"], settings)(judged)
    truth = rule(judged)
    assert sum(a.verdict == b.verdict for a, b in zip(mine, truth, strict=True)) > 40


def test_engines_are_started_once(judge_actors: JudgeEngines, trained_judge: str) -> None:
    assert judge_engines(trained_judge, ENGINE).actors == judge_actors.actors


def test_a_reply_that_its_limit_cuts_off_says_so(judge_actors: JudgeEngines) -> None:
    [request] = requests(1)
    whole, cut = judge_actors([ChatRequest(request.messages, limit) for limit in (8, 1)])
    assert (whole.completion_tokens, whole.cut_off, cut.completion_tokens, cut.cut_off) == (2, False, 1, True)


def test_a_judge_that_thinks_is_asked_to_before_its_critique_alone(trained_judge: str, tmp_path: Path) -> None:
    """By the template's own switch, which adds a token to the prompt here. A constrained verdict leaves no room for
    thinking."""
    folder = tmp_path / "judge"
    shutil.copytree(trained_judge, folder)
    tokenizer = AutoTokenizer.from_pretrained(trained_judge)
    tokenizer.chat_template = "{{ messages[0].content }}{% if enable_thinking and thinking %}9{% endif %}"
    tokenizer.save_pretrained(folder)
    [request] = requests(1)
    asked = [replace(request, thinks=thinks, choices=()) for thinks in (None, False, True)]
    replies = judge_engines(str(folder), ENGINE)([*asked, replace(request, thinks=True)])
    lengths = [reply.prompt_tokens - replies[0].prompt_tokens for reply in replies]
    assert lengths == [0, 0, 1, 0] and not any(reply.error for reply in replies)


def test_the_tokenizer_s_control_tokens_are_known(judge_actors: JudgeEngines) -> None:
    assert judge_actors.controls.tokens == ("<eos>", "<pad>")


def test_order_is_kept_over_actors() -> None:
    """Actors that answer with what they were asked: which share went where is all that is tested."""

    class Echo:
        class chat:
            @staticmethod
            def remote(asked: list[ChatRequest]) -> object:
                return ray.put([ChatReply(r.messages[0].content) for r in asked])

    for count in (0, 1, 2, 3, 7):
        texts = [str(i) for i in range(count)]
        replies = JudgeEngines((Echo(), Echo(), Echo()))([ChatRequest((Message("user", t),), 1) for t in texts])
        assert [reply.text for reply in replies] == texts


def test_any_loader_finds_the_judge_s_own_tokenizer(trained_judge: str) -> None:
    """AutoTokenizer puts another one in place for some types of models; vLLM goes by it."""
    tokenizer = AutoTokenizer.from_pretrained(trained_judge)
    text = "Compute 12 + 3.\nResponse:\nStep 1: 2 + 3 + 0 = 5\nFirst wrong step: "
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=True, return_dict=True
    )["input_ids"]
    # Compute ,1,2, + ,3,.|Response:|Step 1: ,2, + ,3, + ,0, = ,5,newline|First wrong step: : 6 + 1 + 9 + 1 pieces
    assert len(ids) == 17 and tokenizer.decode(ids) == text


def test_a_model_without_a_chat_template_is_refused(policy: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="chat template"):
        judge_engines(policy, ENGINE)


def test_a_thinking_section_that_the_template_opens_is_closed_before_a_verdict(tmp_path: Path) -> None:
    """As the templates of QwQ and of the R1 distillations do, which know no switch."""
    worker = JudgeWorker.__new__(JudgeWorker)
    worker.tokenizer = AutoTokenizer.from_pretrained(save_small_model(tmp_path))
    worker.tokenizer.chat_template += "{{ '<think>\\n' }}"
    asked = ChatRequest((Message("user", "Compute 1 + 1."),), 32, 0.6, 0, thinks=True)
    critique, verdict = (worker._encode(request) for request in (asked, replace(asked, choices=("none", "1"))))
    said = [worker.tokenizer.decode(ids) for ids in (critique, verdict)]
    assert said[0].endswith("<think>\n") and said[1].endswith("<think>\n\n</think>\n\n")
    assert said[1].startswith(said[0].rstrip())
