"""A judge that asks a language model, wherever it runs: the conversation, the votes, the majority.

A judge that thinks (`judge.thinks`) has room for that in the limit of each reply, and its verdict is read from what
follows the thinking. A reply that is empty, or that its limit cut off before a verdict, says nothing of the response:
it is an abstention that is not kept, and is counted in a warning that names the setting to change.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sgpo_core.config.judge import JudgeSettings
from sgpo_core.judges.base import Item
from sgpo_core.judges.chat import Chat, ChatReply, ChatRequest, Message
from sgpo_core.judges.control_tokens import NO_CONTROLS, ControlTokens
from sgpo_core.judges.prompts import PromptTemplate, choices, keyed_hash, parse
from sgpo_core.judges.sanitize import sanitize
from sgpo_core.types import Judgment, Verdict

VERDICT_TOKENS = 32  # a constrained verdict has a few; the rest is for servers that can't constrain

log = logging.getLogger("sgpo.judge")


@dataclass(frozen=True, slots=True)
class PromptedJudge:
    """Asks `settings.votes` times about every item, all in one batch a turn: the critiques, then the verdicts (the
    latter alone, where the prompt has no critique). What is asked about an item depends on it and on the settings
    alone, not on its batch. `controls`: the control tokens of the model's tokenizer, where they are known."""

    chat: Chat
    prompt: PromptTemplate
    settings: JudgeSettings
    controls: ControlTokens = NO_CONTROLS

    def __call__(self, items: Sequence[Item]) -> list[Judgment]:
        asked = [item for item in items if item.steps]
        cast = self._votes(asked)
        _warn(cast)
        votes = iter(cast)
        return [self._judgment(votes) if item.steps else _NOTHING_TO_READ for item in items]

    def _votes(self, items: Sequence[Item]) -> list[_Vote]:
        """`settings.votes` of each item, one behind the other."""
        shown = self.settings.reference, self.settings.seed, self.controls
        openings = [self.prompt.messages(item, *shown) for item in items]
        ballots = [
            _Vote(item, messages, number)
            for item, messages in zip(items, openings, strict=True)
            for number in range(self.settings.votes)
        ]
        if self.prompt.question is None:
            return self._ask_verdicts(ballots)
        critiques = self._send([self._request(vote, "critique", self.settings.critique_tokens) for vote in ballots])
        ballots = [
            self._with_critique(vote.counting(reply), reply, self.prompt.question(len(vote.item.steps)))
            for vote, reply in zip(ballots, critiques, strict=True)
        ]
        return self._ask_verdicts(ballots)

    def _ask_verdicts(self, ballots: Sequence[_Vote]) -> list[_Vote]:
        open_votes = [vote for vote in ballots if vote.verdict is None]
        replies = iter(
            self._send(
                [
                    replace(self._request(vote, "verdict", VERDICT_TOKENS), choices=choices(len(vote.item.steps)))
                    for vote in open_votes
                ]
            )
        )
        return [vote if vote.verdict is not None else self._with_verdict(vote, next(replies)) for vote in ballots]

    def _request(self, vote: _Vote, turn: str, max_tokens: int) -> ChatRequest:
        key = keyed_hash(self.settings.seed, turn, vote.number, vote.item.problem.prompt, vote.item.text)
        seed = int.from_bytes(key, "big") >> 1  # in [0, 2^31)
        settings = self.settings
        room = settings.thinking_tokens if settings.thinks else 0
        return ChatRequest(vote.messages, max_tokens + room, settings.temperature, seed, thinks=settings.thinks)

    def _send(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        return self.chat(requests) if requests else []

    def _with_critique(self, vote: _Vote, reply: ChatReply, question: str) -> _Vote:
        if reply.error:
            return replace(vote, verdict=Verdict.abstain(reply.error), failed=True)
        # Thinking whose beginning stands in the prompt, and that does not end, reads like a critique.
        endless = bool(self.settings.thinks) and reply.cut_off and not reply.thought
        if endless or not reply.text.strip():
            return self._without(vote, reply, "critique", self.settings.critique_tokens)
        # The judge may quote what it read, or spell out what was rewritten there: its words are text of others, too.
        critique = Message("assistant", sanitize(reply.text, self.controls).strip())
        return replace(vote, messages=(*vote.messages, critique, Message("user", question)))

    def _with_verdict(self, vote: _Vote, reply: ChatReply) -> _Vote:
        vote = vote.counting(reply)
        if reply.error:
            return replace(vote, verdict=Verdict.abstain(reply.error), failed=True)
        verdict, said = parse(reply.text, len(vote.item.steps)), reply.text.strip()
        # What was cut off may be thinking whose beginning stands in the prompt: a verdict that it mentions is none.
        mentioned = reply.cut_off and bool(self.settings.thinks) and said not in choices(len(vote.item.steps))
        if not said or mentioned or (reply.cut_off and verdict.abstained):
            return self._without(vote, reply, "verdict", VERDICT_TOKENS)
        return replace(vote, verdict=verdict)

    def _without(self, vote: _Vote, reply: ChatReply, what: str, limit: int) -> _Vote:
        """The vote of a reply that is empty, or was cut off before a verdict; `limit` is without the thinking."""
        settings = self.settings
        if settings.thinks:
            where = "while it thought or wrote" if reply.text.strip() else "while it thought"
            advice = f"raise judge.thinking_tokens={settings.thinking_tokens}"
            limit += settings.thinking_tokens
        else:
            where = "while it thought" if reply.thought else "before there was one"
            advice = "set judge.thinks=true" if reply.thought else "if it is a reasoning model, set judge.thinks=true"
        end = f"cut off at {limit} tokens, {where}" if reply.cut_off else "empty"
        return replace(vote, verdict=Verdict.abstain(f"the judge's {what} is {end}: {advice}"), failed=True, spent=True)

    def _judgment(self, votes: Iterator[_Vote]) -> Judgment:
        mine = [next(votes) for _ in range(self.settings.votes)]
        verdicts = tuple(vote.verdict for vote in mine if vote.verdict is not None)
        verdict, agreement = majority(verdicts)
        return Judgment(
            verdict,
            verdicts,
            agreement,
            prompt_tokens=sum(vote.prompt_tokens for vote in mine),
            completion_tokens=sum(vote.completion_tokens for vote in mine),
            transient=any(vote.failed for vote in mine),
        )


def majority(votes: Sequence[Verdict]) -> tuple[Verdict, float | None]:
    """What most votes say, and the share that says it of those that say anything (None where none does).

    An abstained vote does not count; where most abstain, or two verdicts have the most votes, so does the whole.
    """
    said = [vote.first_error_step for vote in votes if not vote.abstained]
    ranking = Counter(said).most_common(2)
    agreement = ranking[0][1] / len(said) if said else None
    if 2 * len(said) < len(votes):
        reason = next(vote.reason for vote in votes if vote.abstained)
        abstained = len(votes) - len(said)
        return Verdict.abstain(f"{abstained} of {len(votes)} votes: {reason}" if len(votes) > 1 else reason), agreement
    if len(ranking) == 2 and ranking[0][1] == ranking[1][1]:
        return Verdict.abstain(f"the votes are tied at {ranking[0][1]} of {len(said)}"), agreement
    return Verdict(ranking[0][0]), agreement


_NOTHING_TO_READ = Judgment(Verdict.abstain("empty response"))


@dataclass(frozen=True, slots=True)
class _Vote:
    """One conversation about one item, as far as it has got."""

    item: Item
    messages: tuple[Message, ...]
    number: int
    verdict: Verdict | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    failed: bool = False  # for want of a reply: it may come when it is asked for again
    spent: bool = False  # on a reply without a verdict: empty, or cut off

    def counting(self, reply: ChatReply) -> _Vote:
        return replace(
            self,
            prompt_tokens=self.prompt_tokens + reply.prompt_tokens,
            completion_tokens=self.completion_tokens + reply.completion_tokens,
        )


def _warn(votes: Sequence[_Vote]) -> None:
    reasons = Counter(vote.verdict.reason for vote in votes if vote.spent and vote.verdict)
    if reasons:
        [(reason, _)] = reasons.most_common(1)
        log.warning("%d of %d votes are not kept: %s", reasons.total(), len(votes), reason)
