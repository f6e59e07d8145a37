"""Iterations as a sequence of events: when each response ends, when its group is judged, who waits for whom.

Responses differ in length, so engines run empty towards the end of a generation; and a group goes to the judge when its
last response is there. Both follow from events here. An event is the end of a text, or one that joins the others: until
the next one the number of running sequences is constant. All times are in seconds. Nothing is drawn at random here:
`Work` says all lengths.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import cycle, pairwise
from typing import Any

import numpy as np

Numbers = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Engine:
    """One vLLM engine, seconds. A step writes a token of every running sequence. It takes `step`, and `sequence` more
    for each of them, and `token` for each token in the KV cache, which is read; or `product` for each sequence, if
    multiplying takes longer than reading. A token of a prompt takes `prefill`. At most `slots` sequences run, and no
    more than have room for `kv_tokens` tokens."""

    slots: int
    step: float = 0.0
    sequence: float = 0.0
    token: float = 0.0
    product: float = 0.0
    prefill: float = 0.0
    kv_tokens: float = math.inf

    def seconds(self, steps: int, running: int, held: float) -> float:
        """Of so many steps with `running` sequences, of which `held` tokens are in the KV cache at the start."""
        read = self.step + self.sequence * running + self.token * (held + running * (steps - 1) / 2)
        return steps * max(read, self.product * running)


@dataclass(frozen=True, slots=True)
class Text:
    """`prompt` tokens are read, of which `computed` are not in the cache of prefixes; `written` tokens are written."""

    prompt: int
    computed: int
    written: int


@dataclass(frozen=True, slots=True)
class Work:
    """An iteration's responses, each array [groups, group size]. `written`: tokens. `asked`: does the judge read it?
    `verdict`: tokens that the judge writes of it. `trained`: share of the tokens that are trained on."""

    written: Numbers
    asked: Numbers
    verdict: Numbers
    trained: float = 1.0

    @property
    def tokens(self) -> int:
        return int(self.written.sum())


@dataclass(frozen=True, slots=True)
class Judge:
    """`count` engines that read prompts of `prompt` tokens and write `votes` verdicts. Without an engine, a response
    takes `seconds`, and one comes after the other."""

    count: int
    engine: Engine | None
    prompt: int = 0
    votes: int = 1
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What a run has, and what its stages take. `prompt`: tokens of a problem. `update`: seconds for each token that is
    trained on, by all ranks together. `other`: seconds of an iteration that no engine and no rank is needed for."""

    engines: int
    engine: Engine
    prompt: int
    judge: Judge | None
    update: float
    sync: float
    other: float = 0.0
    async_level: int = 0


@dataclass(frozen=True, slots=True)
class Span:
    """`number`-th of the `kind` (rollout, judge, trainer, sync) is at work on an iteration."""

    kind: str
    number: int
    iteration: int
    begin: float
    end: float


@dataclass(slots=True)
class Timeline:
    """What was done when. The first iteration, in which nothing overlaps yet, does not count in what is said of it."""

    spans: list[Span] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)  # of the iterations
    tokens: list[int] = field(default_factory=list)

    @property
    def iteration_s(self) -> float:
        return (self.ends[-1] - self.ends[0]) / (len(self.ends) - 1)

    @property
    def tokens_s(self) -> float:
        return sum(self.tokens[1:]) / (self.ends[-1] - self.ends[0])

    def idle(self, kind: str, count: int) -> float:
        """Share of the time in which `count` of the kind wait."""
        first, last = self.ends[0], self.ends[-1]
        busy = sum(max(0.0, min(s.end, last) - max(s.begin, first)) for s in self.spans if s.kind == kind)
        return max(0.0, 1 - busy / (count * (last - first)))  # by rounding a little below 0 otherwise


def decode(texts: Sequence[Text], engine: Engine, asked: Sequence[float] | None = None) -> list[float]:
    """When each of the texts is complete; `asked`: when each is asked for, ascending, by default at 0. They begin in
    their order: one that ends makes room for the next, and one that is asked for joins those that run (continuous
    batching). A text begins only if there is room in the KV cache for all of it: vLLM would begin, and repeat it later
    if room is short."""
    ends, asked = [0.0] * len(texts), asked or [0.0] * len(texts)
    running: list[tuple[int, int]] = []  # (step after which it is complete, its place)
    now, step, held, reserved, place = 0.0, 0, 0, 0, 0
    while running or place < len(texts):
        if not running:
            now = max(now, asked[place])
        while place < len(texts) and len(running) < engine.slots and asked[place] <= now:
            text = texts[place]
            if running and reserved + text.prompt + text.written > engine.kv_tokens:
                break
            now += engine.prefill * text.computed
            held, reserved = held + text.prompt, reserved + text.prompt + text.written
            heappush(running, (step + text.written, place))
            place += 1
        steps = running[0][0] - step
        seconds = engine.seconds(steps, len(running), held)
        if place < len(texts) and len(running) < engine.slots and now < asked[place] < now + seconds:
            share = (asked[place] - now) / seconds
            steps = max(1, math.ceil(steps * share - 1e-9))  # until it joins
            seconds = engine.seconds(steps, len(running), held)
        now += seconds
        held, step = held + steps * len(running), step + steps
        while running and running[0][0] == step:
            _, done = heappop(running)
            ends[done] = now
            held, reserved = held - (size := texts[done].prompt + texts[done].written), reserved - size
    return ends


Generated = tuple[list[float], list[float]]


def generation(work: Work, engines: int, engine: Engine, prompt: int) -> Generated:
    """When each group is complete, and when each engine is done. Whole groups are spread over the engines, as
    tasks/engines/generation.py does it; the first response of a group computes their prompt."""
    complete, done = np.zeros(len(work.written)), []
    for number in range(engines):
        mine = work.written[number::engines]
        texts = [Text(prompt, 0 if sample else prompt, int(n)) for group in mine for sample, n in enumerate(group)]
        ends = np.array(decode(texts, engine)).reshape(mine.shape)
        complete[number::engines] = ends.max(axis=1, initial=0.0)
        done.append(float(ends.max(initial=0.0)))
    return complete.tolist(), done


class _JudgeEngines:
    """A group goes to the judge when it is complete, and joins those that are being judged
    (tasks/workers/judge_worker.py)."""

    def __init__(self, judge: Judge) -> None:
        self._judge, self._free = judge, [0.0] * judge.count  # when each engine is done
        self._turns = cycle(range(judge.count))

    def take(self, iteration: int, groups: Iterable[tuple[float, list[int]]], spans: list[Span]) -> float:
        """When the last verdict is there. A group: when it is complete, and the tokens of each verdict on it. Engines
        take its parts in turns (tasks/engines/judge_engines.py)."""
        count, ended = self._judge.count, 0.0
        shares: list[list[tuple[float, int]]] = [[] for _ in range(count)]
        for complete, verdicts in sorted(groups, key=lambda group: group[0]):
            parts = min(count, len(verdicts))
            for first, last in pairwise(len(verdicts) * i // parts for i in range(parts + 1)):
                number = next(self._turns)
                shares[number] += [(max(complete, self._free[number]), tokens) for tokens in verdicts[first:last]]
        for number, share in enumerate(shares):
            for begin, end in _periods([begin for begin, _ in share], self._ends(share)):
                spans.append(Span("judge", number, iteration, begin, end))
                self._free[number] = end
                ended = max(ended, end)
        return ended

    def _ends(self, share: Sequence[tuple[float, int]]) -> list[float]:
        judge, ends, now = self._judge, list[float](), 0.0
        if judge.engine is not None:
            votes = [(begin, tokens) for begin, tokens in share for _ in range(judge.votes)]
            texts = [Text(judge.prompt, judge.prompt, tokens) for _, tokens in votes]
            found = decode(texts, judge.engine, [begin for begin, _ in votes])
            return [max(found[i : i + judge.votes]) for i in range(0, len(found), judge.votes)]
        for begin, _ in share:
            now = max(now, begin) + judge.seconds
            ends.append(now)
        return ends


def _periods(begins: Sequence[float], ends: Sequence[float]) -> list[tuple[float, float]]:
    """In which at least one of these goes on; `begins` ascend."""
    found: list[tuple[float, float]] = []
    for begin, end in zip(begins, ends, strict=True):
        if found and begin <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((begin, end))
    return found


def simulate(pipeline: Pipeline, works: Sequence[Work], generated: Sequence[Generated] | None = None) -> Timeline:
    """Iterations in the order of flows/online.py. With `async_level` 1 each but the first is generated while the one
    before it trains. The last of `works` ends the simulation: it is generated at most, not trained on. `generated`:
    what `generation` says of each of the works, if that is known."""
    line, queue = Timeline(), _JudgeEngines(pipeline.judge) if pipeline.judge else None
    engines, engine, prompt = pipeline.engines, pipeline.engine, pipeline.prompt
    made = generated or [generation(work, engines, engine, prompt) for work in works]
    written, judged = [0.0] * len(works), [0.0] * len(works)

    def generate(i: int, begin: float) -> None:
        if i >= len(works):
            return
        complete, done = made[i]
        line.spans += [Span("rollout", e, i, begin, begin + seconds) for e, seconds in enumerate(done)]
        written[i] = judged[i] = begin + max(done)
        if queue:
            asked = zip(complete, works[i].asked, works[i].verdict, strict=True)
            groups = [(begin + end, [int(n) for n in tokens[which]]) for end, which, tokens in asked if which.any()]
            judged[i] = max(written[i], queue.take(i, groups, line.spans))

    now, ahead = 0.0, pipeline.async_level == 1
    for i, work in enumerate(works[:-1]):
        if i == 0 or not ahead:
            generate(i, now)
        if i == 0 and ahead:
            generate(1, written[0])
        began = max(now, judged[i])
        now = began + pipeline.update * work.trained * work.tokens
        line.spans.append(Span("trainer", 0, i, began, now))
        if ahead:
            now = max(now, written[i + 1])
        line.spans.append(Span("sync", 0, i, now, now + pipeline.sync))
        now += pipeline.sync
        if ahead:
            generate(i + 2, now)
        now += pipeline.other
        line.ends.append(now)
        line.tokens.append(work.tokens)
    return line
