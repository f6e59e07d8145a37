"""What a guard has to find: every process of a run bears its token (test_resume.py kills some)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar

import psutil
import ray

from tasks.engines.guard import TOKEN, alive, family, start_guard, sync_folder
from tasks.paths import REPOSITORY
from tests.helpers import shell_environment

T = TypeVar("T")


def answers(processes: Iterable[psutil.Process], ask: Callable[[psutil.Process], T]) -> Iterator[T]:
    """Of the processes that still run: between two questions one may end (Ray's workers come and go) or be a zombie."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # ZombieProcess too
            yield ask(process)


def test_processes_with_titles_of_their_own_still_bear_the_token(policy: str) -> None:
    assert ray.is_initialized()  # the policy was made on engines that are still up
    found = family(start_guard())
    running = alive(psutil.Process().children(recursive=True))  # engines that other tests killed may be zombies
    titled = {p: name for p, name in answers(running, lambda p: (p, p.name())) if name.startswith("ray::")}
    assert "ray::RuntimeEnvAgent" in titled.values()  # its parent may die first
    assert set(titled) <= found
    assert set(answers(titled, lambda p: p.environ()[TOKEN])) == {os.environ[TOKEN]}


def test_a_run_listens_on_loopback_alone(policy: str) -> None:
    """Ray's daemons and workers, vLLM's engines, the trainer's rank, the temporary Prefect server."""
    sockets = answers(alive(family(start_guard())), lambda p: (p.name(), p.net_connections(kind="inet")))
    listening = {
        (name, ip_address(c.laddr.ip))
        for name, connections in sockets
        for c in connections
        if c.status == psutil.CONN_LISTEN
    }
    names = {name for name, _ in listening}
    assert {"gcs_server", "raylet"} <= names and any(name.startswith("ray::") for name in names)
    assert {(n, ip) for n, ip in listening if not (getattr(ip, "ipv4_mapped", None) or ip).is_loopback} == set()


def test_its_token_stands_in_no_command_line_and_its_folder_is_the_user_s_alone(tmp_path: Path) -> None:
    token, folder = start_guard(), sync_folder(str(tmp_path))
    lines = list(answers(psutil.Process().children(recursive=True), lambda p: p.cmdline()))
    assert sum("tasks.engines.guard" in line for line in lines) == 1
    assert not any(token in part for line in lines for part in line)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_ray_s_token_is_in_no_file_and_nobody_connects_without_it(tmp_path: Path) -> None:
    run = (
        "import subprocess, sys, ray\n"
        "from tasks.engines.actors import start_ray\n"
        "start_ray()\n"
        "address = ray.get_runtime_context().gcs_address\n"
        "connect = f'import ray; ray.init(address={address!r}, log_to_driver=False); print(ray.is_initialized())'\n"
        "import os; tokens = [os.environ['RAY_AUTH_TOKEN'], '0' * 64]\n"
        "for token in tokens:\n"
        "    done = subprocess.run([sys.executable, '-c', connect], env=os.environ | {'RAY_AUTH_TOKEN': token},\n"
        "                          capture_output=True, text=True, timeout=120)\n"
        "    print(done.returncode == 0, 'True' in done.stdout, 'uthenticat' in done.stderr)\n"
    )
    own = shell_environment(tmp_path) | {"HOME": str(tmp_path)}
    command = [sys.executable, "-c", run]
    done = subprocess.run(command, cwd=REPOSITORY, env=own, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    with_it, with_another = (line.split() for line in done.stdout.splitlines())
    assert with_it[:2] == ["True", "True"] and with_another == ["False", "False", "True"]
    assert not (tmp_path / ".ray").exists()


def test_only_folders_that_bear_the_token_are_removed(tmp_path: Path) -> None:
    token = "0123456789abcdef"
    own, others, link = tmp_path / f"sgpo-{token}", tmp_path / "sgpo-f", tmp_path / "link" / f"sgpo-{token}"
    for folder in (own, others, link.parent):
        folder.mkdir()
    link.symlink_to(others)
    listed = "".join(f"{line}\n" for line in (own, others, link, tmp_path))
    # A process that tells its guard so and ends at once: before the guard looks who its parent is.
    run = (
        "import os, subprocess, sys\n"
        "p = subprocess.Popen([sys.executable, '-m', 'tasks.engines.guard'], stdin=subprocess.PIPE,\n"
        "                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)\n"
        f"p.stdin.write(f'{token} {{os.getpid()}}\\n' + {listed!r}); p.stdin.flush(); print(p.pid)"
    )
    command = [sys.executable, "-c", run]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=60)
    with suppress(psutil.NoSuchProcess):  # it has ended
        psutil.Process(int(done.stdout)).wait(30)
    assert not own.exists()
    assert others.is_dir()
    assert tmp_path.is_dir()
