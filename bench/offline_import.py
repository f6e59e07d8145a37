"""An import by itself, for its peak memory: `python -m bench.offline_import POLICY SOURCE FOLDER` prints it as JSON.

A module of its own, so that this process loads what an import needs and nothing else.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

from sgpo_core.config.data import ModelSettings
from sgpo_core.config.offline import ResponsesSettings
from sgpo_core.offline.importer import import_responses
from tasks.data import PolicyCodec

MODEL = ModelSettings(max_length=128)


def main(policy: str, source: str, target: str) -> None:
    """Writes the shards of a source; seconds, and peak resident memory with all libraries (MiB)."""
    codec, folder = PolicyCodec(policy, MODEL), Path(target)
    began = time.perf_counter()
    import_responses(ResponsesSettings(source=source), codec, folder, folder / "parts")
    seconds = time.perf_counter() - began
    shutil.rmtree(folder / "parts")
    print(json.dumps({"seconds": seconds, "peak_mib": peak_mib()}))


def peak_mib() -> float:
    """Of this process. (Not ru_maxrss, which starts with what the process had that started this one.)"""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
