"""The rollout engines: seeds, log-probabilities, and that a stale sync can't go unnoticed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sgpo_core.chains import problems as chains
from sgpo_core.config.data import ModelSettings
from sgpo_core.config.run import load_run
from sgpo_core.data.problems import load_problems, problems_of_iteration
from sgpo_core.storage import rollout_table
from sgpo_core.storage.run_dir import RunPaths
from sgpo_core.types import Rollout
from tasks import rollout as rollouts
from tasks.data import encode_prompts, load_tokenizer, stop_ids
from tasks.engines.cluster import Engines, Turns, engines_for
from tasks.engines.generation import generate_groups
from tasks.engines.sync import sync_engines
from tasks.workers.meeting import Meeting
from tasks.workers.rollout_worker import Completion, Request, Sampling
from tasks.workers.weight_transfer import BroadcastTransfer
from tests.faults.syncs import (
    Tamper,
    embedding_moved,
    layers_swapped,
    left_out,
    norm_of_before,
    nothing_loaded,
    part_of_a_fused_one_left_out,
    tampered,
)
from tests.records import RIGHT, WRONG, group, rollout

CONFIG = load_run("tiny")


@pytest.fixture(scope="module")
def running(policy: str) -> Iterator[Engines]:
    with engines_for(policy, CONFIG.model, CONFIG.cluster) as engines:
        engines.on_all_ranks("setup", policy, CONFIG.model, CONFIG.train, CONFIG.deepspeed, False)
        yield engines


@pytest.fixture(scope="module", params=["file", "broadcast"])
def either(running: Engines, request: pytest.FixtureRequest) -> Engines:
    """The same engines, whose weights come by file, and by broadcast."""
    if request.param == "file":
        return running
    meeting = running.sync_dir / f"broadcast-{uuid.uuid4().hex}"
    return replace(running, broadcast=BroadcastTransfer(Meeting(1 + len(running.rollouts), file=str(meeting)), 60.0))


@pytest.fixture(scope="module")
def prompts(policy: str) -> list[list[int]]:
    return encode_prompts(policy, chains.make_problems(6, seed=9), ModelSettings(max_length=128), 64)


def sampling(policy: str, temperature: float = 1.0) -> Sampling:
    return Sampling(temperature, 64, stop_ids(policy))


def generated(engines: Engines, policy: str, groups: list[list[Request]], temperature: float = 1.0) -> list[Completion]:
    how, tokenizer = sampling(policy, temperature), load_tokenizer(policy)
    return [response.completion for group in generate_groups(engines, tokenizer, groups, how) for response in group]


def test_seed_alone_decides_a_response(running: Engines, policy: str, prompts: list[list[int]]) -> None:
    sync_engines(running, 1, prompts[0], 1e-4)
    requests = [Request(prompts[i % 6], seed=i) for i in range(24)]
    together = generated(running, policy, [requests[i : i + 4] for i in range(0, 24, 4)])
    backwards = generated(running, policy, [[request] for request in reversed(requests)])[::-1]
    assert len(together) == 24
    for a, b in zip(together, backwards, strict=True):
        np.testing.assert_array_equal(a.token_ids, b.token_ids)
        np.testing.assert_array_equal(a.logprobs, b.logprobs)
    assert len({tuple(c.token_ids) for c in together}) > 12


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_are_those_of_the_distribution_sampled_from(
    running: Engines, policy: str, prompts: list[list[int]], temperature: float
) -> None:
    from transformers import AutoModelForCausalLM

    sync_engines(running, 1, prompts[0], 1e-4)
    [completion] = generated(running, policy, [[Request(prompts[1], 3)]], temperature)
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    ids = torch.tensor([[*prompts[1], *completion.token_ids]])
    with torch.no_grad():
        logprobs = torch.log_softmax(model(ids).logits[0] / temperature, dim=-1)
    first = len(prompts[1])
    expected = [float(logprobs[i - 1, ids[0, i]]) for i in range(first, ids.shape[1])]
    np.testing.assert_allclose(completion.logprobs, expected, atol=1e-4)
    assert completion.truncated == (completion.token_ids[-1] not in sampling(policy).stop_ids)


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (left_out, r"model\.layers\.1\.mlp\.down_proj"),
        (
            part_of_a_fused_one_left_out,
            r"1 of \d+ parameters different \(model\.layers\.0\.self_attn\.qkv_proj\.weight",
        ),
        (layers_swapped, r"\d+ of \d+ parameters different \(model\.layers\.0\."),
        (norm_of_before, r"1 of \d+ parameters different \(model\.norm\.weight"),
        (embedding_moved, r"2 of \d+ parameters different \(lm_head\.weight"),  # it is the head, too
    ],
)
def test_an_engine_that_holds_other_weights_stops_the_run(
    either: Engines, prompts: list[list[int]], tamper: Tamper, said: str
) -> None:
    with (
        tampered(either.rollouts[-1], tamper),
        pytest.raises(RuntimeError, match=f"rollout engine 1 does not hold the trainer's weights.*{said}"),
    ):
        sync_engines(either, 7, prompts[0], 1e-4)
    assert sync_engines(either, 8, prompts[0], 1e-4).mean < 1e-5, "a real sync repairs it"


def test_a_reload_that_does_nothing_stops_the_run(either: Engines, prompts: list[list[int]]) -> None:
    with (
        nothing_loaded(either.rollouts[0]),
        pytest.raises(RuntimeError, match=r"rollout engine 0 does not hold .* parameters not loaded"),
    ):
        sync_engines(either, 9, prompts[0], 1e-4)
    sync_engines(either, 10, prompts[0], 1e-4)


def test_engines_and_ranks_that_share_gpus_work_in_turns(
    running: Engines, policy: str, prompts: list[list[int]]
) -> None:
    """On the CPU an engine that sleeps keeps its memory, but generates nothing until it is woken."""
    requests = [[Request(prompts[i], seed=i)] for i in range(4)]
    sync_engines(running, 11, prompts[0], 1e-4)
    expected = generated(running, policy, requests)

    turns = Turns()
    sharing = replace(running, turns=turns)
    sharing.on_all_ranks("peak_memory")
    assert turns.at_work == "ranks"
    with pytest.raises(RuntimeError, match="asleep"):
        generated(running, policy, requests)  # by somebody who does not know that they are asleep
    assert sync_engines(sharing, 12, prompts[0], 1e-4).mean < 1e-5 and turns.at_work == "engines"
    for before, after in zip(expected, generated(sharing, policy, requests), strict=True):
        np.testing.assert_array_equal(before.token_ids, after.token_ids)
    sharing.on_all_ranks("peak_memory")
    assert [len(completion.token_ids) > 0 for completion in generated(sharing, policy, requests)] == [True] * 4


def test_an_engine_that_computes_otherwise_stops_the_run(running: Engines, prompts: list[list[int]]) -> None:
    """The digests are equal and the arithmetic is not: a limit that no engine can keep stands for it."""
    with pytest.raises(RuntimeError, match=r"computes other log-probabilities.*cluster\.sync_tolerance=1e-12"):
        sync_engines(running, 11, prompts[0], 1e-12)


def test_history_is_read_from_the_run_s_own_record(tmp_path: Path) -> None:
    config = load_run("tiny", ["algorithm=srpo", "data.count=8", "sampling.problems=4"])
    run: Any = SimpleNamespace(config=config, problems=load_problems(config.data), paths=RunPaths(tmp_path))
    solved = set()
    for iteration in (1, 2):  # the first pass
        chosen = rollouts._problems(run, iteration, 0)
        assert chosen == problems_of_iteration(run.problems, 4, config.seed, iteration)
        solved |= {p.id for p in chosen[:2]}
        rollout_table.write(
            run.paths.rollouts(iteration),
            [group(g, [graded(p.id in solved or sample == 1) for sample in range(2)], p) for g, p in enumerate(chosen)],
        )
    again = rollouts._problems(run, 3, 0)
    assert len(again) == 4 and not solved & {p.id for p in again}

    for iteration in (1, 2):  # the run starts over: another record under the same name
        chosen = [p.problem for p in rollout_table.read(run.paths.rollouts(iteration))]
        wrong = [group(g, [graded(False)] * 2, p) for g, p in enumerate(chosen)]
        rollout_table.write(run.paths.rollouts(iteration), wrong)
    assert {p.id for p in rollouts._problems(run, 3, 0)} & solved


@pytest.mark.parametrize(("mixed", "rounds"), [([1, 3], [0, 1]), ([4, 0], [0]), ([1, 1, 1], [0, 1, 2])])
def test_a_resumed_iteration_counts_its_rounds_as_the_first_time(
    tmp_path: Path, mixed: list[int], rounds: list[int]
) -> None:
    """All rounds are in the saved table from the start; the count goes by what each of them had found."""
    config = load_run("tiny", ["algorithm=dapo", "sampling.problems=4"])
    run: Any = SimpleNamespace(config=config, paths=RunPaths(tmp_path))
    groups = [(False, True) if g < found else (False, False) for found in mixed for g in range(4)]
    rollout_table.write(
        run.paths.rollouts(1),
        [group(number, [graded(c) for c in correct]) for number, correct in enumerate(groups)],
    )
    assert list(rollouts.sampling_rounds(run, 1)) == rounds


def graded(correct: bool) -> Rollout:
    return rollout(grade=RIGHT if correct else WRONG)
