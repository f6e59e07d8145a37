"""What a guard has to find: every process of a run bears its token (test_resume.py kills some)."""

from __future__ import annotations

import os

import psutil
import ray

from tasks.engines.guard import TOKEN, family, start_guard


def test_processes_with_titles_of_their_own_still_bear_the_token(policy: str) -> None:
    assert ray.is_initialized()  # the policy was made on engines that are still up
    found = family(start_guard())
    titled = [p for p in psutil.Process().children(recursive=True) if p.name().startswith("ray::")]
    assert "ray::RuntimeEnvAgent" in {p.name() for p in titled}  # its parent may die first
    assert set(titled) <= found
    assert {p.environ()[TOKEN] for p in titled} == {os.environ[TOKEN]}
