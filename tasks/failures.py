"""Ends that are not the good one: what has failed in part, what was terminated, and a Prefect that does not answer."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any


class PartlyFailed(RuntimeError):
    """Some of what a flow was to do has failed, as the message says; `result` is what it hands back of the rest."""

    def __init__(self, message: str, result: dict[str, Any]) -> None:
        super().__init__(message)
        self.result = result


def end_as_terminated() -> None:
    """From here on a SIGTERM is an exception of Prefect's, also outside of flows. Without it a flow that gets one ends
    as the system's default has it: at once, with its state in Prefect still running, and without a word."""
    from prefect.exceptions import TerminationSignal

    def end(number: int, frame: FrameType | None) -> None:
        raise TerminationSignal(number)

    signal.signal(signal.SIGTERM, end)


def was_terminated(error: BaseException | None) -> bool:
    """Whether a SIGTERM is behind an error: Prefect raises TerminationSignal wherever the process is at the moment, and
    compiled code there may make another error of it. While Ray starts, it makes a SystemExit of it."""
    from prefect.exceptions import TerminationSignal

    while error is not None:
        if isinstance(error, TerminationSignal) or (isinstance(error, SystemExit) and error.code == signal.SIGTERM):
            return True
        error = error.__cause__ or error.__context__
    return False


def is_prefects_silence(error: BaseException) -> bool:
    """Whether Prefect's server could not be reached, after all of Prefect's own tries."""
    from httpx import TransportError  # what Prefect talks to its server with; nothing else of ours lets it through

    return isinstance(error, TransportError)
