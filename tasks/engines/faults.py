"""Engines and ranks that die or hang: found, and named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray


class EngineLost(RuntimeError):
    """An actor has died, or has not answered in time. What it was doing can be done again from the last checkpoint."""


def answers(pending: Mapping[Any, str], deadline_s: float) -> list[Any]:
    """Results of calls (reference -> who was asked), in their order. Raises EngineLost, which names who died, or has
    not answered within `deadline_s`."""
    found: dict[Any, Any] = {}
    waiting = list(pending)
    while waiting:  # in the order in which they come: a dead one is named before those who wait for it hang
        ready, waiting = ray.wait(waiting, timeout=deadline_s)
        if not ready:
            raise hung([pending[reference] for reference in waiting], deadline_s)
        for reference in ready:
            try:
                found[reference] = ray.get(reference)
            except ray.exceptions.RayActorError as error:
                raise died(pending[reference], error) from None
    return [found[reference] for reference in pending]


def died(who: str, error: ray.exceptions.RayActorError) -> EngineLost:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return EngineLost(f"{who} died ({lines[-1] if lines else type(error).__name__})")


def hung(who: list[str], deadline_s: float) -> EngineLost:
    return EngineLost(f"{', '.join(who)} did not answer within {deadline_s:g} s (cluster.deadline_s)")
