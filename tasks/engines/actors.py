"""Ray, and the actors that engines are: how their processes start."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from prefect.exceptions import MissingContextError
from prefect.logging import get_logger, get_run_logger
from ray._private import ray_constants

from sgpo_core.config.base import ConfigError
from tasks.engines.guard import start_guard, sync_folder
from tasks.engines.placement import Seat
from tasks.paths import REPOSITORY

_HEAD_WITHIN_S = 10.0


def one_node() -> bool:
    """All is on this machine, in a Ray that this process started."""
    return "RAY_ADDRESS" not in os.environ


def local_folder() -> Path | None:
    """A folder of this user's alone where processes of this machine meet, None where some may be on others."""
    return sync_folder(tempfile.gettempdir()) if one_node() else None


def start_ray() -> None:
    """Unless it is up: a cluster (RAY_ADDRESS), or one of this process's own."""
    start_guard()
    if not ray.is_initialized():
        _check_head(os.environ.get("RAY_ADDRESS", ""))
        if one_node():
            # Ray's own switch for desktop systems, by which all its processes listen on loopback alone. This process
            # read the variable when it imported Ray; the others will.
            os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
            ray_constants.ENABLE_RAY_CLUSTER = False
            # Who has it may run code here. Ray would write it into a file that other users may read; the environment of
            # a process is its user's alone.
            if "RAY_AUTH_TOKEN_PATH" not in os.environ:
                os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
            # Ray would start a process for each core in advance. None of our actors takes one: each wants variables of
            # its own.
            os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
        with _own_sigterm(), _let_in():
            ray.init(
                address=os.environ.get("RAY_ADDRESS", "local"),  # never a cluster that just happens to run here
                include_dashboard=False,
                log_to_driver=False,
                configure_logging=False,
                runtime_env={"env_vars": {"PYTHONPATH": str(REPOSITORY)}},
            )


@contextmanager
def _let_in() -> Iterator[None]:
    """Says what Ray does not: why a head that is there may not answer."""
    try:
        yield
    except RuntimeError as error:
        if one_node() or "Version mismatch" not in str(error):
            raise
        raise ConfigError(
            f"RAY_ADDRESS={os.environ['RAY_ADDRESS']}: all nodes, and this process, have to have the same versions of "
            f"Ray and of Python: run make setup on each of them. {' '.join(str(error).split())}"
        ) from None
    except ConnectionError as error:
        if one_node():
            raise
        raise ConfigError(
            f"RAY_ADDRESS={os.environ['RAY_ADDRESS']}: what answers there does not let this process in ({error}). It "
            "has to be the head of a Ray cluster, with the same token as here (RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN "
            "or ~/.ray/auth_token), or without one on both sides (RAY_AUTH_MODE=disabled); and with TLS on both sides "
            "(RAY_USE_TLS), or on none"
        ) from None


def _check_head(address: str) -> None:
    """Raises ConfigError where nobody listens at the address (HOST:PORT) of a cluster's head: Ray would try for minutes
    in compiled code that no signal interrupts."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():  # `auto`, `local`, or none
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _HEAD_WITHIN_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"RAY_ADDRESS={address}: no head of a Ray cluster answers there ({error}). Start it "
            f"(ray start --head --port={port}), or correct the address"
        ) from None


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """The handler of SIGTERM is the same behind the block as before. Ray sets two of its own: one prints a stack, the
    other keeps from Prefect what has happened."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


@contextmanager
def ready_in(what: str) -> Iterator[None]:
    """Says that engines start, which takes longer than anything else before the first iteration, and when they are
    ready: on the page of the flow run, if there is one."""
    try:
        logger = get_run_logger()
    except MissingContextError:
        logger = get_logger("engines")
    logger.info(f"starting {what}")
    began = time.monotonic()
    yield
    logger.info(f"{what}: ready in {time.monotonic() - began:.0f} s")


def remote_actor(worker: type, seat: Seat, variables: dict[str, str], calls: int = 1) -> Any:
    """An actor class. `variables` are in its process's environment before anything is loaded; so many calls of its
    methods go on at a time, each in a thread."""
    return ray.remote(worker).options(
        max_concurrency=calls,
        num_cpus=0,  # trainers and engines take turns on the cores; their threads are limited by OMP_NUM_THREADS
        num_gpus=seat.gpus,
        runtime_env={"env_vars": {"PYTHONPATH": str(REPOSITORY), **variables}},
        scheduling_strategy=seat.strategy,
    )
