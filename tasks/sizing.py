"""What a run needs, against what is on this machine or on one that is only named: the page of `flows.preflight`, and
the check in front of every run on GPUs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from sgpo_core.config.base import ConfigError
from sgpo_core.config.run import RunConfig, TrainingConfig
from sgpo_core.sizing.hardware import GPUS, Gpu
from sgpo_core.sizing.memory import GIB
from sgpo_core.sizing.plan import Machine, Need, free_gib, gpus_wanted, indivisible, judge_context, needs
from sgpo_core.sizing.seconds import ASKED, MFU, Phase, iteration_seconds, phases
from sgpo_core.sizing.shapes import KNOWN, ModelShape
from tasks.gpus import Device, devices
from tasks.judges.kinds import kind_of
from tasks.models.folders import local_folder
from tasks.paths import home
from tasks.reports.text_table import text_table


def shape_of(model: str) -> ModelShape | None:
    """Of a model on this machine, or one that is known by its name; None for another, and for one that is no dense
    decoder."""
    if (folder := local_folder(model)) is None:
        return KNOWN.get(model.partition("@")[0])
    try:
        return ModelShape.of(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (KeyError, TypeError, ValueError):
        return None


def this_machine(config: TrainingConfig) -> Machine | None:
    """None without GPUs. What the run has on the disk already is counted as there."""
    if not (found := devices()):
        return None
    sync_dir, run_folder = Path(config.cluster.sync_dir), home() / config.experiment / config.run_id
    return Machine(
        len(found),
        _least(found),
        psutil.virtual_memory().total / GIB,
        shutil.disk_usage(sync_dir).free / GIB if sync_dir.is_dir() else None,
        (shutil.disk_usage(existing(home())).free + _size(run_folder)) / GIB,
    )


def _least(found: Sequence[Device]) -> Gpu:
    """The smallest GPU, with the figures of its data sheet where there is one."""
    least = min(found, key=lambda device: device.memory)
    # NVIDIA A100-SXM4-80GB, NVIDIA L4, NVIDIA GeForce RTX 4090
    words = least.name.replace("RTX ", "RTX").replace("-", " ").split()
    sheets = [gpu for name, gpu in GPUS.items() if name.partition("-")[0] in words]
    sheet = min(sheets, key=lambda gpu: abs(gpu.memory - least.memory), default=None)
    return Gpu(least.name, least.memory, *((sheet.tflops, sheet.bandwidth) if sheet else (0.0, 0.0)))


@dataclass(frozen=True, slots=True)
class TrainingHardware:
    """What is trained, and on which kind of GPU."""

    policy: ModelShape
    gpu: Gpu


@cache  # asked in every iteration
def training_hardware(policy: str) -> TrainingHardware | None:
    """`policy` is a folder. None where its model's shape or the GPU's data sheet is not known."""
    shape, found = shape_of(policy), devices()
    gpu = _least(found) if found else None
    return TrainingHardware(shape, gpu) if shape and gpu and gpu.tflops else None


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def gib_on_a_gpu(config: TrainingConfig, machine: Machine) -> float:
    """How much of a GPU has to be free; nine tenths where the model's shape is not known."""
    if (policy := _policy_shape(config)) is None:
        return 0.9 * machine.gpu.memory
    return free_gib(config, policy, judge_shape(config), machine.gpu)


def named_machine(gpu: str, gpus: int) -> Machine:
    """Of what is not GPU nothing is known. Raises ConfigError for a GPU that is not in the table."""
    if gpu not in GPUS:
        raise ConfigError(f"--gpu {gpu}: choose one of {', '.join(GPUS)}")
    return Machine(gpus, GPUS[gpu])


def existing(path: Path) -> Path:
    """The folder itself, or the first one above it that is there."""
    while not path.exists():
        path = path.parent
    return path


def sizing_problems(config: TrainingConfig, machine: Machine) -> list[str]:
    """What does not fit, each with the setting that mends it; [] also where the model's shape is not known."""
    if (policy := _policy_shape(config)) is None:
        return []
    found = needs(config, policy, judge_shape(config), machine)
    return _impossible(config, policy) + [_lacking(need) for need in found if not need.fits]


def _impossible(config: TrainingConfig, policy: ModelShape) -> list[str]:
    """What no machine could do."""
    judge = judge_shape(config)
    return indivisible(config, policy, judge) + judge_context(config, judge)


def _lacking(need: Need) -> str:
    there = f" of {need.there:.1f}" if need.there is not None else ""
    parts = ", ".join(f"{name} {size:.1f}" for name, size in need.parts.items())
    return f"{need.total:.1f}{there} GiB for {need.what} ({parts}): {need.fix}"


def _policy_shape(config: TrainingConfig) -> ModelShape | None:
    return shape_of(config.model.path) if config.model.path else None


def judge_shape(config: TrainingConfig) -> ModelShape | None:
    """Of the model that judge engines of the run hold, if there are such."""
    return shape_of(config.asked_judge.model) if kind_of(config.asked_judge).local else None


def policy_to_size(config: TrainingConfig) -> ModelShape:
    """Raises ConfigError where there is nothing to compute from."""
    if config.cluster.gpus == 0:
        raise ConfigError(f"preset {config.preset} runs on the CPU: sizes are computed for presets on GPUs")
    if (policy := _policy_shape(config)) is None:
        raise ConfigError(
            f"model.path={config.model.path}: its shape is not known here. Give a folder with its config.json, or one "
            f"of {', '.join(KNOWN)}"
        )
    return policy


def mean_length(config: TrainingConfig) -> float:
    """Tokens of a response, on average, where nobody says."""
    return config.sampling.max_tokens / 4


def page(config: TrainingConfig, machine: Machine, response_tokens: float) -> tuple[str, bool]:
    """The page as text, and whether the run fits. Raises ConfigError where there is nothing to compute from."""
    policy, judge = policy_to_size(config), judge_shape(config)
    found = needs(config, policy, judge, machine)
    wanted = gpus_wanted(config, judge)
    lines = [
        f"{config.preset}: {policy.parameters / 1e9:.2f} billion parameters, {config.model.dtype}, on {machine.gpus} x "
        f"{machine.gpu.name} ({machine.gpu.memory:.1f} GiB each)",
        "",
        text_table([["", "GiB", "of", ""], *(row for need in found for row in _rows(need))]),
    ]
    if machine.gpu.tflops and config.cluster.rollout_gpus and config.cluster.trainer_gpus:
        judge = judge if config.judge.engine.gpus else None
        estimate = phases(config, policy, judge, machine.gpu, response_tokens)
        lines += ["", _seconds(config, estimate, wanted, response_tokens)]
    problems = _impossible(config, policy) + [_lacking(need) for need in found if not need.fits]
    if wanted > machine.gpus:
        problems.insert(0, f"{wanted} GPUs, {machine.gpus} are there: cluster=... chooses another layout")
    verdict = "\n".join(f"DOES NOT FIT  {problem}" for problem in problems)
    if not problems and wanted < machine.gpus:
        idle = f"{machine.gpus - wanted} of {machine.gpus} GPUs are not used"
        lines += ["", f"{idle}: flows.simulate finds the best split"]
    fits = (
        "FITS" if machine.memory else "FITS the GPUs; host memory, shared memory and disk of that machine are not known"
    )
    return "\n".join([*lines, "", verdict or fits]), not problems


def _rows(need: Need) -> list[list[str]]:
    there = "" if need.there is None else f"{need.there:,.1f}"
    head = [need.what, f"{need.total:,.1f}", there, need.note if need.fits else "TOO LITTLE"]
    return [head, *([f"  {name}", f"{size:,.1f}", "", ""] for name, size in need.parts.items())]


def _seconds(config: TrainingConfig, estimate: list[Phase], gpus: int, response_tokens: float) -> str:
    """Also of one-step-off generation, where the run could choose that."""
    rows = [["iteration, estimated", "s", "what bounds it"]]
    rows += [[f"  {p.name}", f"{p.seconds:,.0f}", p.bound] for p in estimate]
    plain = config.algorithm.resampling.strategy == "plain"
    one_off = isinstance(config, RunConfig) and plain and not config.cluster.colocated
    for level, named in ((0, " with async_level=0"), (1, " with async_level=1")) if one_off else ((0, ""),):
        whole = iteration_seconds(estimate, level)
        busy = sum(p.seconds * p.gpus for p in estimate) / (whole * gpus)
        rows.append([f"  in all{named}", f"{whole:,.0f}", f"GPUs are at work {busy:.0%} of the time"])
    responses = config.sampling.problems * config.sampling.group_size
    asked = ASKED[config.algorithm.credit.scope]
    return (
        f"{text_table(rows)}\n\nOf {responses:,} responses of {response_tokens:,.0f} tokens on average "
        f"(--response-tokens), {asked:.0%} of them judged, at {MFU:.0%} of the GPU's peak in training: assumed, so "
        "compare settings by it, and do not plan by it."
    )
