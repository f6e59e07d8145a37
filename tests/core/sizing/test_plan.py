"""What a run needs, put together, with sums derived by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sgpo_core.config.run import RunConfig, load_run
from sgpo_core.sizing.hardware import GPUS
from sgpo_core.sizing.memory import GIB
from sgpo_core.sizing.plan import Machine, Need, free_gib, gpus_wanted, indivisible, judge_context, needs
from sgpo_core.sizing.seconds import BANDWIDTH, COPY, MFU, Phase, iteration_seconds, phases
from sgpo_core.sizing.shapes import KNOWN, ModelShape

SEVEN = KNOWN["Qwen/Qwen2.5-7B-Instruct"]
NODE = Machine(8, GPUS["H100-80"])
N = SEVEN.parameters


def of(found: list[Need], what: str) -> Need:
    return next(need for need in found if need.what.startswith(what))


@pytest.fixture
def seven() -> RunConfig:
    return load_run("7b", [])


ON_EIGHT = ["7b", "7b-base", "14b", "32b", "r1-qwen-7b", "r1-llama-8b", "r1-qwen-14b", "r1-qwen-32b"]


def shape(model: str | None) -> ModelShape:
    return KNOWN[str(model).partition("@")[0]]


@pytest.mark.parametrize("preset", ON_EIGHT)
@pytest.mark.parametrize("gpu", ["A100-80", "H100-80"])
def test_the_presets_fit_the_node_that_they_are_for(preset: str, gpu: str) -> None:
    config = load_run(preset, [])
    judge = shape(config.judge.model)
    found = needs(config, shape(config.model.path), judge, Machine(8, GPUS[gpu]))
    assert [need.what for need in found if not need.fits] == []
    assert gpus_wanted(config, judge) == 8


def test_other_judges_fit_too() -> None:
    cases = (("7b", "qwen3-32b", 8), ("7b", "qwen3-8b", 5), ("7b", "llm", 5), ("32b", "qwen3-8b", 7), ("32b", "llm", 7))
    for preset, judge, gpus in cases:
        config = load_run(preset, [f"judge={judge}"])
        found = needs(config, shape(config.model.path), shape(config.judge.model), NODE)
        assert all(need.fits for need in found) and gpus_wanted(config, shape(config.judge.model)) == gpus


def test_adapters_of_7b_fit_one_gpu_of_80_gb() -> None:
    config = load_run("7b-lora", [])
    for gpu in ("A100-80", "H100-80"):
        found = needs(config, SEVEN, None, Machine(1, GPUS[gpu]))
        assert [need.what for need in found if not need.fits] == [] and gpus_wanted(config, None) == 1
    whole = needs(load_run("7b-lora", ["model.lora.rank=0"]), SEVEN, None, Machine(1, GPUS["H100-80"]))
    assert not of(whole, "trainer rank").fits


@pytest.mark.parametrize("preset", ["0.5b", "1.5b"])
def test_on_a_small_gpu_engine_and_trainer_fit_together(preset: str) -> None:
    config = load_run(preset, [])
    policy = KNOWN[str(config.model.path).partition("@")[0]]
    found = needs(config, policy, None, Machine(1, GPUS["L4-24"]))
    assert gpus_wanted(config, None) == 1
    assert of(found, "rollout engine").there == pytest.approx(0.4 * 22)
    assert of(found, "trainer rank").there == pytest.approx(0.6 * 22)
    assert [need.what for need in found if not need.fits] == []


def test_engine_and_trainer_that_sleep_in_turns_have_the_gpu_to_themselves() -> None:
    """Of 22 GiB the engine takes 90 %, and a rank that sleeps keeps 1.5; the rank has all but 2.5. In host memory are,
    while they change places, the engine's weights (2 bytes a parameter), and the rank's state (2 + 12)."""
    asleep = ["cluster.sleep=true", "cluster.gpu_memory_utilization=0.9"]
    config, policy, gpu = load_run("0.5b", asleep), KNOWN["Qwen/Qwen2.5-0.5B-Instruct"], Machine(1, GPUS["L4-24"])
    found = needs(config, policy, None, gpu)
    assert of(found, "rollout engine").there == pytest.approx(0.9 * 22)
    assert of(found, "trainer rank").there == pytest.approx(22 - 2.5)
    expected = (2 + 2 + 12) * policy.parameters / GIB
    assert of(found, "host memory").parts["engines and ranks that sleep"] == pytest.approx(expected)
    assert free_gib(config, policy, None, gpu.gpu) == pytest.approx(0.9 * 22 + 1.5)
    seconds = [phases(c, policy, None, gpu.gpu, 300)[-1].seconds for c in (load_run("0.5b", []), config)]
    assert seconds[1] - seconds[0] == pytest.approx(2 * (2 + 2 + 12) * policy.parameters / COPY)
    greedy = needs(load_run("0.5b", ["cluster.sleep=true", "cluster.gpu_memory_utilization=0.95"]), policy, None, gpu)
    engine = of(greedy, "rollout engine")
    assert not engine.fits and engine.fix == "cluster.gpu_memory_utilization=0.93"  # 1 - 1.5 / 22 = .9318


def test_host_and_disk_of_7b(seven: RunConfig) -> None:
    """Three ranks that each read files of up to 5 GB, one of which exports 2 bytes a parameter; four checkpoints of
    12 + 2 bytes and a policy of 2; 2 bytes on their way to the engines."""
    found = needs(seven, SEVEN, SEVEN, NODE)
    host = of(found, "host memory")
    assert host.parts["weights in every rank, while they are loaded"] == pytest.approx(3 * 5e9 / GIB)
    assert host.parts["weights that rank 0 exports"] == pytest.approx(2 * N / GIB)
    assert "optimizer" not in host.parts
    whole = of(needs(load_run("7b", ["deepspeed=zero2"]), SEVEN, SEVEN, NODE), "host memory")
    assert whole.parts["weights in every rank, while they are loaded"] == pytest.approx(3 * 2 * N / GIB)
    assert of(found, "disk").total == pytest.approx((4 * 14 + 2) * N / GIB)
    assert of(found, "folder /dev/shm").total == pytest.approx(2 * N / GIB)


def test_an_offloaded_optimizer_is_in_host_memory(seven: RunConfig) -> None:
    """12 bytes a parameter, and 8 of gradients."""
    config = load_run("7b", ["deepspeed=zero3_offload"])
    assert of(needs(config, SEVEN, None, NODE), "host memory").parts["optimizer"] == pytest.approx(20 * N / GIB)


def test_what_does_not_fit_names_the_setting_that_mends_it() -> None:
    small = Machine(8, GPUS["A100-40"], memory=40, shared_memory=1, disk=100)
    found = needs(load_run("7b", []), SEVEN, SEVEN, small)
    assert [need.what.split(" (")[0] for need in found if not need.fits] == [
        *("trainer rank", "host memory", "folder /dev/shm", "disk")
    ]
    fixes = {need.what.split(" (")[0]: need.fix for need in found}
    assert fixes["trainer rank"] == "deepspeed=zero3_offload"
    assert "--shm-size" in fixes["folder /dev/shm"] and "checkpoint.keep" in fixes["disk"]


@pytest.mark.parametrize(
    "overrides, gpu, fix",
    [
        (["train.micro_batch_tokens=131072"], "A100-80", "train.micro_batch_tokens=32768"),
        (["train.gradient_checkpointing=false"], "A100-40", "train.gradient_checkpointing=true"),
        (["deepspeed=zero2"], "A100-40", "deepspeed=zero3"),
        (["deepspeed=zero3_offload", "model.max_length=16384"], "L4-24", "cluster.trainer_ranks=6, or a smaller model"),
    ],
)
def test_the_smallest_change_comes_first(overrides: list[str], gpu: str, fix: str) -> None:
    trainer = of(needs(load_run("7b", overrides), SEVEN, SEVEN, Machine(8, GPUS[gpu])), "trainer rank")
    assert not trainer.fits and trainer.fix == fix


def test_models_that_can_not_be_split_over_an_engine_s_gpus() -> None:
    """Qwen2.5-7B: 28 heads, 4 key-value heads, 18,944 = 2^9 x 37 rows. QwQ-32B: 40 heads, 8, 27,648 = 2^10 x 27."""
    judge, config = KNOWN["Qwen/QwQ-32B"], load_run("7b", ["cluster.rollout_gpus=8", "judge.engine.gpus=3"])
    policy_s, judge_s = indivisible(config, SEVEN, judge)
    assert policy_s.startswith("cluster.rollout_gpus=8: the policy has 28 attention heads, 4 key-value heads")
    assert policy_s.endswith("can't be split over 8 GPUs: choose 1 or 2 or 4")
    assert judge_s.startswith("judge.engine.gpus=3: the judge's model has 40") and judge_s.endswith("1 or 2 or 4 or 8")
    assert indivisible(load_run("7b", ["cluster.rollout_gpus=4"]), SEVEN, judge) == []
    assert [n for n in range(1, 9) if KNOWN["Qwen/Qwen2.5-1.5B-Instruct"].splits_over(n)] == [1, 2, 4]  # 12 heads, 2


def test_a_judge_that_can_not_read_a_long_response_is_said() -> None:
    # A prompt of 200 + 2 * 3,072 + 600 = 6,944 tokens; up to 1,024 + 8,192 are written.
    judge = KNOWN["Qwen/QwQ-32B"]
    assert judge_context(load_run("7b"), judge) == [] == judge_context(load_run("7b"), None)
    [said] = judge_context(load_run("7b", ["judge.engine.max_length=16159"]), judge)
    assert "about 6,944 tokens" in said and said.index("set it to 16160 or more")
    assert judge_context(load_run("7b", ["judge.engine.max_length=16160"]), judge) == []


def test_an_engine_without_room_for_one_sequence_does_not_fit() -> None:
    """22 x .9 = 19.8 GiB, of which weights and a forward pass take 16.2: 3.6 GiB hold 16 sequences of 4,096 tokens. At
    131,072 tokens one takes 7 GiB."""
    gpu = Machine(8, GPUS["L4-24"])
    engine = of(needs(load_run("7b", []), SEVEN, None, gpu), "rollout engine")
    assert engine.fits and "holds 16 sequences" in engine.note and "wait" in engine.note
    long = of(needs(load_run("7b", ["model.max_length=131072"]), SEVEN, None, gpu), "rollout engine")
    assert not long.fits and long.parts["KV cache"] == pytest.approx(7.0) and "cluster.rollout_gpus=2" in long.fix
    four = of(
        needs(load_run("7b", ["model.max_length=2000000", "cluster.rollout_gpus=4"]), SEVEN, None, gpu), "rollout"
    )
    assert not four.fits and four.fix == "GPUs with more memory, or a smaller model"  # it can't be split over 8


def test_seconds_of_the_update_and_of_the_sync(seven: RunConfig) -> None:
    """1,024 responses of 775 tokens, and an eighth of their prompt of 200 each: 819,200 tokens. Each meets 8 operations
    a parameter in the update, and 2 for the old log-probabilities in three of the four optimizer steps; attention adds
    to every 2 x parameters 2 x 28 layers x 3,584 x 975 tokens. The sync copies 2 bytes a parameter four times,
    broadcast twice."""
    found = {phase.name: phase for phase in phases(seven, SEVEN, None, NODE.gpu, 775)}
    work = 9.5 / 2 * 819_200 * (2 * SEVEN.multiplied + 2 * 28 * 3584 * 975)
    assert found["update"].seconds == pytest.approx(work / (3 * 989e12 * MFU))
    assert found["sync"].seconds == pytest.approx(4 * 2 * N / COPY)
    for settings, operations in ((["train.mini_batches=1"], 8), (["train.epochs=2"], 2 * 8 + 2)):
        of_update = phases(load_run("7b", settings), SEVEN, None, NODE.gpu, 775)[-2].seconds
        assert of_update == pytest.approx(found["update"].seconds * operations / 9.5)
    broadcast = load_run("7b", ["cluster.sync_by=broadcast"])
    [sync] = [phase for phase in phases(broadcast, SEVEN, None, NODE.gpu, 775) if phase.name == "sync"]
    assert sync.seconds == pytest.approx(2 * 2 * N / COPY)
    assert not [need for need in needs(broadcast, SEVEN, None, NODE) if "/dev/shm" in need.what]


def test_one_step_off_the_update_hides_the_judged_generation_or_is_hidden_by_it() -> None:
    estimate = [
        Phase("generate", 30, "", 2),
        Phase("judge", 40, "", 2),
        Phase("update", 50, "", 4),
        Phase("sync", 5, "", 0),
    ]
    assert [iteration_seconds(estimate, level) for level in (0, 1)] == [40 + 50 + 5, 50 + 5]
    [generate, judge, update, sync] = estimate
    assert iteration_seconds([generate, update, sync], 0) == 30 + 50 + 5
    assert iteration_seconds([generate, judge, replace(update, seconds=10), sync], 1) == 40 + 5


def test_seconds_of_generation_are_those_of_reading(seven: RunConfig) -> None:
    """One engine with 1,024 responses in batches of 256: a step reads the weights, and of every sequence 57,344
    bytes for each of 200 + 387.5 tokens. What is left is the prompts' products."""
    found = phases(seven, SEVEN, None, NODE.gpu, 775)[0]
    step = (2 * SEVEN.multiplied + 256 * 587.5 * 57_344) / (3350e9 * BANDWIDTH)
    steps = 1024 * 775 / 256
    assert found.bound == "memory bandwidth"
    assert steps * step < found.seconds < steps * step + 8
