"""Checks of the nodes of a Ray cluster: are they there, and can engines run on each of them?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sgpo_core.config.base import ConfigError
from tasks.engines.faults import EngineLost, first_of, last_line
from tasks.paths import REPOSITORY, home

_PACKAGES = ("vllm", "torch", "transformers", "deepspeed")  # Ray itself refuses a node with another Ray or Python
_ANSWER_WITHIN_S = 120.0


def check_nodes(*models: Path) -> None:
    """Raises ConfigError where a node does not see this process's home, in which models, checkpoints and finished
    policies are files, or the folders of the `models`, or has other versions of packages."""
    home().mkdir(parents=True, exist_ok=True)
    marker = home() / f".seen-{uuid4().hex}"
    marker.touch()
    try:
        blind = nodes_without(marker)
    finally:
        marker.unlink()
    if blind:
        raise ConfigError(
            f"SGPO_HOME={home()} is not shared: {', '.join(blind)} can't see what this process writes into it. It has "
            "to be a folder that all nodes share, under the same path"
        )
    for folder in models:
        check_model(folder)
    ours = _versions()
    differing = [
        f"{package} {theirs[package]} on {node}, {ours[package]} here"
        for node, theirs in _on_every_node(_versions).items()
        for package in _PACKAGES
        if theirs[package] != ours[package]
    ]
    if differing:
        raise ConfigError(f"nodes have other versions: {'; '.join(differing)}. Run make setup on each of them")


def check_model(folder: Path) -> None:
    """Raises ConfigError where a node does not see this folder, from which engines on any of them may load."""
    if blind := nodes_without(folder):
        raise ConfigError(
            f"the model {folder} is not on {', '.join(blind)}: put it into a folder that all nodes share, under the "
            "same path (HF_HOME, for models of the hub)"
        )


@contextmanager
def starting(what: str) -> Iterator[None]:
    """Raises ConfigError for engines that do not start, and EngineLost where a node has left meanwhile: without it they
    may."""
    there = set(alive_nodes())
    try:
        yield
    except (ray.exceptions.RayError, EngineLost) as error:
        if gone := there - set(alive_nodes()):
            raise EngineLost(f"{', '.join(sorted(gone))} left the cluster while engines started") from error
        raise ConfigError(f"{what} did not start: {last_line(error)}") from error


def wait_for_nodes() -> None:
    """After a loss: until every node that Ray takes for alive answers, or for two minutes. Until Ray sees that one has
    died, which may take it half a minute, engines would be put there."""
    until = time.monotonic() + _ANSWER_WITHIN_S
    while time.monotonic() < until:
        try:
            _on_every_node(_sees, "/")
            return
        except ConfigError:
            time.sleep(1)


def nodes_without(path: Path) -> list[str]:
    """The nodes on which a file or a folder is not there."""
    return [node for node, seen in _on_every_node(_sees, str(path)).items() if not seen]


def _on_every_node(what: Any, *arguments: Any) -> dict[str, Any]:
    """By node, what it answers. Raises ConfigError that names one which does not."""
    asked = {
        name: ray.remote(what)
        .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
        .remote(*arguments)
        for name, node in alive_nodes().items()
    }
    answers, until = {}, time.monotonic() + _ANSWER_WITHIN_S
    for name, reference in asked.items():
        first_of([reference], max(0.0, until - time.monotonic()))
        try:
            answers[name] = ray.get(reference, timeout=0)
        except ray.exceptions.RayError as error:
            if name in alive_nodes():  # else it has left meanwhile
                raise ConfigError(
                    f"{name} can't run this repository's code ({last_line(error)}): it has to be there under "
                    f"{REPOSITORY}, set up"
                ) from error
    return answers


def alive_nodes() -> dict[str, dict[str, Any]]:
    """Those that are alive, by address and id."""
    return {f"{node['NodeManagerAddress']} ({node['NodeID'][:6]})": node for node in ray.nodes() if node["Alive"]}


def _sees(path: str) -> bool:
    return Path(path).exists()


def _versions() -> dict[str, str]:
    names = packages_distributions()  # vLLM's for the CPU has another name
    return {package: version(names[package][0]) if package in names else "missing" for package in _PACKAGES}
