"""The files for containers: what they open, what they ask for, and that they name what is there. (They are run by hand:
docs/containers.md says with which result.)"""

from __future__ import annotations

import re
import subprocess
from typing import Any

import yaml

from sgpo_core.config.run import load_run
from tests.helpers import REPOSITORY

COMPOSE = (REPOSITORY / "deploy/compose.yaml").read_text(encoding="utf-8")
PAGE = (REPOSITORY / "docs/containers.md").read_text(encoding="utf-8")
SERVICES: dict[str, Any] = yaml.safe_load(COMPOSE)["services"]


def test_servers_are_open_to_their_own_machine_alone() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) == 2 and all(port.startswith("127.0.0.1:") for port in ports)
    assert "ports" not in SERVICES["postgres"]


def test_every_variable_is_explained_and_no_secret_has_a_default() -> None:
    used = dict(re.findall(r"\$\{([A-Z_0-9]+)(:[-?][^}$]*)?", COMPOSE))
    table = "\n".join(line for line in PAGE.splitlines() if line.startswith("| `"))
    assert len(used) > 8 and [name for name in used if f"`{name}`" not in table] == []
    assert {name for name, default in used.items() if default == ":?"} == {
        *("DATABASE_PASSWORD", "PREFECT_PASSWORD", "MLFLOW_PASSWORD", "MLFLOW_SECRET")
    }


def test_the_job_starts_a_run_that_there_is() -> None:
    _, job = yaml.safe_load_all((REPOSITORY / "deploy/kubernetes.yaml").read_text(encoding="utf-8"))
    [container] = job["spec"]["template"]["spec"]["containers"]
    variables = {each["name"]: each.get("value") for each in container["env"]}
    assert int(variables["NODES"]) == job["spec"]["completions"] == job["spec"]["parallelism"]
    shell, script = container["command"]
    here = REPOSITORY / script.removeprefix("/opt/sgpo/")
    subprocess.run([shell, "-n", str(here)], check=True)
    flow, preset, *overrides = container["args"]
    config = load_run(preset, overrides)
    gpus = container["resources"]["limits"]["nvidia.com/gpu"]
    assert flow == "online" and config.cluster.gpus + config.judge.engine.gpus == 2 * gpus


def test_the_image_holds_no_state_and_no_secret_of_whoever_builds_it() -> None:
    ignored = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").split()
    assert {".git", ".venv", "runs", "prefect.toml", "*.env"} <= set(ignored)
