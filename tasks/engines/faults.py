"""Engines and ranks that die or hang: found, and named."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from tasks.workers.vllm_process import ProcessLost

_LOST = (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError, ray.exceptions.NodeDiedError)
_MEMORY = re.compile(r"Memory on the node .* was (\S+) used / (\S+) limit")
_DEATH_S = 10.0  # in which Ray tells of a death
_PIECE_S = 0.5


class EngineLost(RuntimeError):
    """An actor has died, or has not answered in time. What it was doing can be done again from the last checkpoint."""


@dataclass
class Restart:
    """What was lost, when this was noticed (seconds since 1970), and how long it took until the work went on."""

    what: str
    noticed: float
    seconds: float | None = None


def answers(pending: Mapping[Any, str], deadline_s: float, watch: Callable[[], None] = lambda: None) -> list[Any]:
    """Results of calls (reference -> who was asked), in their order. Raises EngineLost, which names who died, or has
    not answered within `deadline_s`; and what `watch` raises, which is called now and then meanwhile."""
    found: dict[Any, Any] = {}
    waiting = list(pending)
    while waiting:  # in the order in which they come: a dead one is named before those who wait for it hang
        ready, waiting = first_of(waiting, deadline_s, watch)
        if not ready:
            raise hung([pending[reference] for reference in waiting], deadline_s)
        for reference in ready:
            try:
                found[reference] = ray.get(reference)
            except Exception as error:
                raise loss(pending[reference], error) or _behind(pending, waiting) or error from None
    return [found[reference] for reference in pending]


def first_of(
    waiting: list[Any], deadline_s: float, watch: Callable[[], None] = lambda: None
) -> tuple[list[Any], list[Any]]:
    """One of these calls or streams that has something, and the others; nothing and all where none has within
    `deadline_s`. While Ray waits, its compiled code holds back what a signal raises (SIGTERM: Prefect's
    TerminationSignal) until it is done, or loses it: so it waits in short pieces."""
    until = time.monotonic() + deadline_s
    while True:
        try:
            ready, others = ray.wait(waiting, timeout=min(_PIECE_S, max(0.0, until - time.monotonic())))
        except SystemError as error:  # "returned a result with an exception set"
            raise error.__cause__ or error from None
        if ready or time.monotonic() >= until:
            return ready, others
        watch()


def _behind(pending: Mapping[Any, str], waiting: list[Any]) -> EngineLost | None:
    """Who died behind the error of another: ranks that lose a peer fail at once, before its death is known."""
    until = time.monotonic() + _DEATH_S
    while waiting:
        ready, waiting = first_of(waiting, max(0.0, until - time.monotonic()))
        if not ready:
            break
        try:
            ray.get(ready[0])
        except Exception as error:
            if lost := loss(pending[ready[0]], error):
                return lost
    return None


def loss(who: str, error: Exception) -> EngineLost | None:
    """The loss that an error of an actor's means; None for an error of its own."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if isinstance(error, _LOST):
        return EngineLost(f"{who} died ({_cause(lines)})")
    if isinstance(error, ray.exceptions.RayTaskError) and isinstance(error.cause, ProcessLost):
        return EngineLost(f"{who} died ({error.cause})")
    return None


def _cause(lines: Sequence[str]) -> str:
    """Ray's last line says it, but where memory was short: there it is a page of advice on Ray."""
    if memory := next((found for line in lines if (found := _MEMORY.search(line))), None):
        used, limit = memory.groups()
        return (
            f"Ray ended it, for the machine was out of memory: {used} of {limit} were used. End other programs, or "
            "lower train.micro_batch_tokens, cluster.kv_cache_mib or cluster.rollout_actors"
        )
    return lines[-1]


def last_line(error: BaseException) -> str:
    """What happened, of an error that comes with a remote traceback."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def hung(who: list[str], deadline_s: float) -> EngineLost:
    return EngineLost(f"{', '.join(who)} did not answer within {deadline_s:g} s")
