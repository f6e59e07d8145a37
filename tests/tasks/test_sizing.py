"""Whether a run fits this machine: asked of the driver's tool (a script stands in for it), said before anything
starts; and the page for a machine that is only named."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sgpo_core.config.base import ConfigError
from sgpo_core.config.run import load_run
from tasks.gpus import Device, devices, driver_problem
from tasks.preflight import check_resources
from tasks.sizing import shape_of
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
    return tmp_path / "told"


def eight(busy: int = 0) -> str:
    return "\n".join(H100.format(free=81000 if number >= busy else 9000) for number in range(8))


def refusal(preset: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        check_resources(load_run(preset, list(overrides)))
    return str(error.value)


def test_the_driver_is_asked(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver.write_text(eight())
    assert devices() == [Device("NVIDIA H100 80GB HBM3", 81559 / 1024, 81000 / 1024, "580.65.06")] * 8
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0, 7,9")
    assert len(devices()) == 2
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
    assert "8 GPUs that nobody else uses (GPU 0 has 9 of 80 GiB free, GPU 1 has" in said
    assert "nobody else" not in refusal("7b", "cluster.rollout_actors=1"), "six are enough"


def test_what_does_not_fit_is_said_with_the_setting(driver: Path) -> None:
    driver.write_text(eight())
    said = refusal("7b", "train.micro_batch_tokens=131072")
    assert "GiB for trainer rank (4)" in said and "train.micro_batch_tokens=65536" in said
    assert "GiB for trainer rank" not in refusal("7b")


def test_offload_needs_the_toolkit(driver: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    driver.write_text(eight())
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.delenv("CUDA_PATH", raising=False)
    assert "CUDA_HOME" in refusal("14b") and "CUDA_HOME" not in refusal("7b")


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
    assert "7.62 billion parameters" in fits.stdout and "trainer rank (4)" in fits.stdout
    small = preflight("7b", "--gpu", "A100-40", "--gpus", "4")
    assert small.returncode == 3 and "DOES NOT FIT  8 GPUs, 4 are there" in small.stdout
    assert "deepspeed=zero3_offload" in small.stdout
    assert "choose one of L4-24" in preflight("7b", "--gpu", "A100").stderr
    assert "runs on the CPU" in preflight("tiny", "--gpu", "A100-80").stderr
