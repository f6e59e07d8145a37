"""The judge of a run: which one, what it is asked, and what is kept of its answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from sgpo_core.chat import Chat
from sgpo_core.credit import Scope, must_judge
from sgpo_core.judge import Item, Judge, Judgement, NoisyJudge, RandomJudge, rule
from sgpo_core.judge_prompts import PROMPTS
from sgpo_core.judge_settings import JudgeSettings
from sgpo_core.prompted_judge import PromptedJudge
from sgpo_core.rollout_table import group_slices
from sgpo_core.segmentation import segment
from sgpo_core.types import Problem, Verdict
from sgpo_core.weights import model_key
from tasks.endpoint import EndpointChat
from tasks.judge_engines import judge_engines
from tasks.services import home
from tasks.verdict_cache import CachedJudge, VerdictCache, judge_identity

Table = Mapping[str, Sequence[Any]]
JUDGED_COLUMNS = ("problem_id", "group", "prompt", "answer", "reference", "response", "truncated", "outcome_reward")


@contextmanager
def open_judge(settings: JudgeSettings) -> Iterator[Judge]:
    """The judge, ready to be asked; what it holds (engines, connections) is let go of at the end of the block."""
    with ExitStack() as held:
        judge = _open(settings, held)
        yield NoisyJudge(judge, settings.noise, settings.seed) if settings.noise else judge


def _open(settings: JudgeSettings, held: ExitStack) -> Judge:
    if settings.name == "rule":
        return rule
    if settings.name == "random":
        return RandomJudge(settings.seed)
    chat: Chat
    if settings.name == "endpoint":
        chat = held.enter_context(EndpointChat(settings.endpoint, settings.model))
    else:
        chat = judge_engines(settings.model, settings.engine)
    judge = PromptedJudge(chat, PROMPTS[settings.prompt], settings)
    if not settings.cache:
        return judge
    cache = VerdictCache(home() / "verdicts.db")
    held.callback(cache.close)
    return CachedJudge(judge, cache, judge_identity(settings, judging_model(settings)))


def judging_model(settings: JudgeSettings) -> str:
    """What names the weights that judge; a server's model is known by its name only."""
    return settings.model if settings.name == "endpoint" else model_key(settings.model)


def calls_at_a_time(settings: JudgeSettings) -> int:
    """Batches that should be under way together: an engine has the next one at hand when it is done, and at an endpoint
    a slow reply holds up few others."""
    return {"trained": 2, "llm": 2, "endpoint": 8}.get(settings.name, 1)


@dataclass(frozen=True, slots=True)
class Response:
    """One response of a group; `row` is its place in the iteration's table."""

    row: int
    text: str
    truncated: bool


class Judging:
    """What of a response goes to the judge, and to which judge. May be called from several threads."""

    def __init__(self, judge: Judge, scope: Scope) -> None:
        self._judge, self._scope = judge, scope
        self._lock, self._busy_s = threading.Lock(), 0.0

    def ask(self, problem: Problem, responses: Sequence[Response], correct: Sequence[bool]) -> dict[int, Item]:
        """Of one group the rows that credit asks about, each as the judge reads it: its whole steps, which of a
        truncated response are all but the last."""
        wanted = must_judge(correct, self._scope)
        return {r.row: _item(problem, r) for r, asked in zip(responses, wanted, strict=True) if asked}

    def __call__(self, items: Sequence[Item]) -> list[Judgement]:
        """Nothing to read is not an abstention: such a response has RTS 0, and nobody has to be asked."""
        written = [item for item in items if item.steps]
        began = time.monotonic()
        answers = iter(self._judge(written) if written else ())
        with self._lock:
            self._busy_s += time.monotonic() - began
        return [next(answers) if item.steps else Judgement(Verdict(None)) for item in items]

    def take_seconds(self) -> float:
        """That the judge was at work, all calls together, since it was last asked."""
        with self._lock:
            busy, self._busy_s = self._busy_s, 0.0
        return busy

    def columns(self, table: Table, known: Mapping[int, Judgement]) -> dict[str, list[Any]]:
        """The judge's columns of a graded table. Rows that are not `known` and have to be judged are judged now."""
        items: dict[int, Item] = {}
        for rows in group_slices(table["group"]):
            group = [_response(table, i) for i in range(rows.start, rows.stop)]
            items |= self.ask(_problem(table, rows.start), group, [r == 1.0 for r in table["outcome_reward"][rows]])
        missing = {row: item for row, item in items.items() if row not in known}
        found = {**known, **dict(zip(missing, self(list(missing.values())), strict=True))}
        judged = [found[row] if row in items else None for row in range(len(table["response"]))]
        return {
            "step_ends": [[step.end for step in segment(text)] for text in table["response"]],
            "first_error_step": [j and j.verdict.first_error_step for j in judged],
            "verdict_status": [j and j.verdict.status.value for j in judged],
            "verdict_reason": [j and j.verdict.reason for j in judged],
            "verdict_votes": [j and [vote_number(vote) for vote in j.votes] for j in judged],
            "verdict_tokens": [j and j.prompt_tokens + j.completion_tokens for j in judged],
            "verdict_cached": [j and j.cached for j in judged],
        }


def item_of_row(table: Table, row: int) -> Item:
    """What the judge reads of one row of a rollout table."""
    return _item(_problem(table, row), _response(table, row))


def _item(problem: Problem, response: Response) -> Item:
    steps = segment(response.text)
    return Item(problem, tuple(steps[:-1] if response.truncated else steps))


def _problem(table: Table, row: int) -> Problem:
    return Problem(*(table[name][row] for name in ("problem_id", "prompt", "answer", "reference")))


def _response(table: Table, row: int) -> Response:
    return Response(row, table["response"][row], table["truncated"][row])


def vote_number(verdict: Verdict) -> int:
    """As tables keep it: the first wrong step, 0 for none found, -1 for an abstention."""
    return -1 if verdict.abstained else verdict.first_error_step or 0
