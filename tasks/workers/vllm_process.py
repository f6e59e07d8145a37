"""What actors with a vLLM engine share: the environment of their process, and the end of one of the engine's own."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

_NOTICED_S = 2.0
_SOCKET_FOLDER = 107 - 37  # characters: the longest address of a Unix socket, less the name that vLLM gives it


_ERROR = re.compile(r"\((?P<process>[^)]*)\) ERROR [^\]]*\] (?P<text>.*)")  # a line of vLLM's log


class ProcessLost(RuntimeError):
    """An engine of several GPUs has a process for each, and one of them has ended."""


@contextmanager
def losses_named(llm: Any) -> Iterator[None]:
    """Raises ProcessLost in place of what vLLM raises once a process of the engine has ended ("cancelled")."""
    try:
        yield
    except Exception as error:
        if _has_lost(llm.llm_engine.model_executor):
            raise ProcessLost("one of its processes has ended; the system's log may say why") from error
        raise


@contextmanager
def causes_named() -> Iterator[None]:
    """Around the start of an engine. Where one of its processes has failed, vLLM raises that the log says why: raises
    RuntimeError with what the log says. The log (standard output) is written when the block ends."""
    with tempfile.TemporaryFile() as log:
        usual = os.dup(1)
        os.dup2(log.fileno(), 1)
        try:
            yield
        except Exception as error:
            if said := cause_in(_text(log).splitlines()):
                raise RuntimeError(said) from error
            raise
        finally:
            os.dup2(usual, 1)
            with os.fdopen(usual, "wb") as standard_output:
                standard_output.write(_text(log).encode())


def _text(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read().decode(errors="replace")


def cause_in(log: Sequence[str]) -> str:
    """The error that ended the first process that failed to start, of the lines of vLLM's log; "" where none did."""
    lines = [line for line in map(_ERROR.match, log) if line]
    first = next((line["process"] for line in lines if "failed to start" in line["text"]), None)
    errors = [line["text"] for line in lines if line["process"] == first and re.match(r"[\w.]+: ", line["text"])]
    return errors[-1] if errors else ""


def _has_lost(executor: Any) -> bool:
    """Others fail at once for the one that has ended, and vLLM notices its end a little later."""
    until = time.monotonic() + _NOTICED_S
    while not getattr(executor, "is_failed", True) and time.monotonic() < until:
        time.sleep(0.05)
    return bool(getattr(executor, "is_failed", False))


def processes(count: int) -> dict[str, Any]:
    """An engine of so many processes (tensor parallel), as vLLM's LLM takes it. They are children of the actor: in a
    placement group vLLM would have Ray start them, which takes bundles of one GPU only."""
    return {"tensor_parallel_size": count, "distributed_executor_backend": "mp" if count > 1 else "uni"}


def vllm_environment(threads: int, local: Path | None) -> dict[str, str]:
    """Variables of a process with an engine of its own; they must be there before vLLM and OpenMP are loaded.
    `local`: a folder for sockets, where whomever it talks to is on this machine."""
    loopback = {"VLLM_HOST_IP": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    if local and len(str(local)) <= _SOCKET_FOLDER:
        # The processes of an engine would leave theirs in the shared temporary folder.
        loopback["VLLM_RPC_BASE_PATH"] = str(local)
    return {
        "OMP_NUM_THREADS": str(threads),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        # The engine is in this process, and only those of its GPUs are others where it has several: to a process of its
        # own it would send what our methods take and return as JSON does, without its types.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        # It would be compiled by nvcc at the start, and be used for no request of ours: they have seeds, or are greedy.
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
        **(loopback if local else {}),
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "0"),
    }
