"""What Prefect's page of a flow run shows while it runs: a bar with a line of text, and a page of markdown."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from threading import Thread
from typing import Any
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact

from tasks.reports.result_page import result_page
from tasks.services.environment import addresses
from tasks.tracking.server import page_of

_PATIENCE_S = 5.0  # with a server that does not answer; Prefect's client itself would try for minutes


class FlowPage:
    """Whatever keeps Prefect from showing something, the flow goes on: after an error at once, and after a few seconds
    without an answer. What it would have to show until that answer comes is left out."""

    def __init__(self, name: str) -> None:
        """`name`: what the artifacts are called; those of one name are versions of each other."""
        self._key = re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")
        self._bar: UUID | None = None
        self._asking = Thread()

    def bar(self, percent: float, line: str) -> None:
        """0 to 100."""

        def show() -> None:
            if self._bar is None:
                bar = create_progress_artifact(percent, key=f"{self._key}-progress", description=line)
                assert isinstance(bar, UUID)  # a coroutine only in asynchronous callers
                self._bar = bar
            else:
                update_progress_artifact(self._bar, percent, description=line)

        self._attempt(show)

    def text(self, markdown: str) -> None:
        self._attempt(lambda: create_markdown_artifact(markdown, key=self._key))

    def _attempt(self, show: Callable[[], object]) -> None:
        def attempt() -> None:
            try:
                show()
            except Exception as error:
                get_run_logger().warning(f"Prefect's page could not show how far this is: {error}")

        if self._asking.is_alive():
            return
        self._asking = Thread(target=copy_context().run, args=(attempt,), daemon=True)
        self._asking.start()
        self._asking.join(_PATIENCE_S)


def show_result(heading: str, result: Mapping[str, Any], following: Sequence[str], table: str = "") -> dict[str, Any]:
    """The page of a flow run that has ended (see `result_page`); returns the result."""
    address = page_of(result["mlflow_run_id"], addresses())
    FlowPage(result["run_id"]).text(result_page(heading, result, table, address, following))
    return dict(result)
