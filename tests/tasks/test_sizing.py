"""Whether a run fits this machine: asked of the driver's tool (a script stands in for it), said before anything
starts; and the page for a machine that is only named."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sgpo_core.config.base import ConfigError
from sgpo_core.config.evaluation import load_evaluation
from sgpo_core.config.judge_eval import load_judge_eval
from sgpo_core.config.run import load_run
from tasks.gpus import Device, devices, driver_problem
from tasks.preflight import check_evaluation, check_judge, check_resources
from tasks.sizing import shape_of, this_machine
from tests.helpers import REPOSITORY, shell_environment

H100 = "NVIDIA H100 80GB HBM3, 81559, {free}, 580.65.06"


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in PATH with an `nvidia-smi` that prints the file `told` beside it."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\ncat {tmp_path}/told\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # of the session's engines
    return tmp_path / "told"


def eight(busy: int = 0) -> str:
    return "\n".join(H100.format(free=81000 if number >= busy else 9000) for number in range(8))


def refusal(preset: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        check_resources(load_run(preset, list(overrides)))
    return str(error.value)


def test_the_driver_is_asked(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver.write_text(eight())
    assert devices() == [
        Device(number, "NVIDIA H100 80GB HBM3", 81559 / 1024, 81000 / 1024, "580.65.06") for number in range(8)
    ]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0, 7,9")
    assert [device.number for device in devices()] == [0, 7]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8932f937")
    assert devices() == [], "whose number is not known"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    driver.write_text("NVIDIA H100 80GB HBM3, [N/A], [N/A], 580.65.06\n")
    assert devices() == [], "a GPU cut into parts"
    driver.write_text("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n")
    assert devices() == []


def test_without_a_driver_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert devices() == []


def test_an_old_driver_is_named() -> None:
    assert driver_problem("580.65.06", "13.0") == "" and driver_problem("550.54.15", "12.8") == ""
    assert "version 550.54.15" in driver_problem("550.54.15", "13.0") and "580" in driver_problem("550.54.15", "13.0")
    assert "EXTRA=gpu" in driver_problem("580.65.06", None)


def test_a_machine_with_gpus_that_cuda_does_not_show(driver: Path) -> None:
    """These packages are built for the CPU: the message says how to get the others."""
    driver.write_text(eight())
    assert "(found 0; these packages are built for the CPU: `make setup EXTRA=gpu`)" in refusal("7b")


def test_gpus_that_somebody_uses_are_named(driver: Path) -> None:
    driver.write_text(eight(busy=2))
    said = refusal("7b")
    assert "8 GPUs with 72 GiB that nobody else uses (GPU 0 has 9 of 80 GiB free, GPU 1 has" in said
    assert "nobody else" not in refusal("7b", "judge=qwen3-8b"), "five are enough"


def test_grpo_needs_no_judge(driver: Path) -> None:
    driver.write_text(eight(busy=4))
    assert "8 GPUs with" in refusal("7b") and "nobody else" not in refusal("7b", "algorithm=grpo")
    assert "which model judges" in refusal("7b", "judge=endpoint")
    assert "which model judges" not in refusal("7b", "judge=endpoint", "algorithm=grpo")


def test_a_desktop_on_the_gpu_is_no_one_else(driver: Path) -> None:
    """0.5b takes 11.1 GiB for its rank and .4 of the GPU for its engine."""
    driver.write_text("NVIDIA GeForce RTX 4090, 24564, 22500, 580.65.06\n")
    assert "nobody else" not in refusal("0.5b")
    driver.write_text("NVIDIA GeForce RTX 4090, 24564, 16000, 580.65.06\n")
    assert "1 GPUs with 21 GiB that nobody else uses (GPU 0 has 16 of 24 GiB free)" in refusal("0.5b")


def test_engines_of_this_process_are_nobody_else(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep checks every run while the engines of the one before are up."""
    driver.write_text(eight(busy=8))
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    assert "nobody else" in refusal("7b")
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    assert "nobody else" not in refusal("7b")


@pytest.mark.parametrize(
    ("check", "settings", "free"),
    [
        (check_evaluation, load_evaluation(["cluster=gpu8"]), 1),
        (check_judge, load_judge_eval("default", ["judge=qwq-32b"]).judge, 4),
    ],
)
def test_engines_by_themselves_find_their_gpus_in_use(
    driver: Path, check: Callable[[Any], None], settings: Any, free: int
) -> None:
    """An evaluation wants one GPU of eight, this judge four; an engine takes nine tenths of a GPU."""
    for enough in (True, False):
        driver.write_text(eight(busy=8 - free + (not enough)))
        with pytest.raises(ConfigError) as refused:  # CUDA shows none of them to these packages
            check(settings)
        assert (f"{free} GPUs with 72 GiB that nobody else uses (GPU 0 has 9 of" in str(refused.value)) != enough


def test_what_the_run_has_on_the_disk_is_its_own(driver: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver.write_text(eight())
    monkeypatch.setenv("SGPO_HOME", str(tmp_path / "home"))
    usage = shutil.disk_usage(tmp_path)._replace(free=400 * 2**30)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    assert "GiB for disk" in refusal("7b")
    checkpoint = tmp_path / "home/sgpo" / load_run("7b").run_id / "checkpoints/000020/state"
    checkpoint.parent.mkdir(parents=True)
    with checkpoint.open("wb") as file:
        file.truncate(113 * 2**30)  # takes no room
    assert "GiB for disk" not in refusal("7b")


@pytest.mark.parametrize("overrides", [["judge.engine.gpus=0"], ["cluster.rollout_gpus=0"], ["cluster.trainer_gpus=0"]])
def test_what_has_no_gpu_is_not_sized_as_if(driver: Path, overrides: list[str]) -> None:
    driver.write_text(eight())
    said = refusal("7b", *overrides)
    assert not any(f"GiB for {what}" in said for what in ("rollout engine", "trainer rank", "judge engine"))


@pytest.mark.parametrize(
    ("name", "mib", "sheet"),
    [
        *(("NVIDIA A100-SXM4-80GB", 81920, 2039), ("NVIDIA A100-PCIE-40GB", 40960, 1555)),
        *(("NVIDIA L4", 23034, 300), ("NVIDIA L40S", 46068, 0), ("NVIDIA GeForce RTX 4090", 24564, 1008)),
    ],
)
def test_figures_are_those_of_the_same_gpu(driver: Path, name: str, mib: int, sheet: float) -> None:
    driver.write_text(f"{name}, {mib}, {mib}, 580.65.06\n")
    machine = this_machine(load_run("0.5b"))
    assert machine is not None and machine.gpu.bandwidth == sheet


def test_what_does_not_fit_is_said_with_the_setting(driver: Path) -> None:
    driver.write_text(eight())
    said = refusal("7b", "train.micro_batch_tokens=131072")
    assert "GiB for trainer rank (3)" in said and "train.micro_batch_tokens=32768" in said
    assert "GiB for trainer rank" not in refusal("7b")


def test_a_folders_shape_is_read(tmp_path: Path) -> None:
    assert shape_of("Qwen/Qwen2.5-7B-Instruct@a09a35") == shape_of("Qwen/Qwen2.5-7B-Instruct") is not None
    assert shape_of("nobody/knows-this") is None
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    assert shape_of(str(tmp_path)) is None


def preflight(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows.preflight", *arguments]
    shell = shell_environment(Path("/nonexistent/sgpo"))
    return subprocess.run(command, cwd=REPOSITORY, env=shell, capture_output=True, text=True, timeout=120)


def test_the_page_of_a_named_machine() -> None:
    fits = preflight("7b", "--gpu", "H100-80")
    assert fits.returncode == 0 and "\nFITS the GPUs; host memory" in fits.stdout, fits.stderr
    assert "7.62 billion parameters" in fits.stdout and "trainer rank (3)" in fits.stdout
    small = preflight("7b", "--gpu", "A100-40", "--gpus", "4")
    assert small.returncode == 3 and "DOES NOT FIT  8 GPUs, 4 are there" in small.stdout
    assert "deepspeed=zero3_offload" in small.stdout
    assert (
        "\n3 of 8 GPUs are not used: flows.simulate"
        in preflight("7b", "judge=llm", "--gpu", "H100-80", "--gpus", "8").stdout
    )
    assert "choose one of L4-24" in preflight("7b", "--gpu", "A100").stderr
    assert (
        "--response-tokens: a number above 0 is wanted"
        in preflight("7b", "--gpu", "H100-80", "--response-tokens=-5").stderr
    )
    assert "runs on the CPU" in preflight("tiny", "--gpu", "A100-80").stderr
