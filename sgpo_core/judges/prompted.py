"""A judge that asks a language model, wherever it runs: the conversation, the votes, the majority."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sgpo_core.config.judge import JudgeSettings
from sgpo_core.judges.base import Item
from sgpo_core.judges.chat import Chat, ChatReply, ChatRequest, Message
from sgpo_core.judges.prompts import PromptTemplate, choices, keyed_hash, parse
from sgpo_core.judges.sanitize import sanitize
from sgpo_core.types import Judgment, Verdict

VERDICT_TOKENS = 32  # a constrained verdict has a few; the rest is for servers that can't constrain


@dataclass(frozen=True, slots=True)
class PromptedJudge:
    """Asks `settings.votes` times about every item, all in one batch a turn: the critiques, then the verdicts (the
    latter alone, where the prompt has no critique). What is asked about an item depends on it and on the settings
    alone, not on its batch."""

    chat: Chat
    prompt: PromptTemplate
    settings: JudgeSettings

    def __call__(self, items: Sequence[Item]) -> list[Judgment]:
        asked = [item for item in items if item.steps]
        votes = iter(self._votes(asked))
        return [self._judgment(votes) if item.steps else _NOTHING_TO_READ for item in items]

    def _votes(self, items: Sequence[Item]) -> list[_Vote]:
        """`settings.votes` of each item, one behind the other."""
        openings = [self.prompt.messages(item, self.settings.reference, self.settings.seed) for item in items]
        ballots = [
            _Vote(item, messages, number)
            for item, messages in zip(items, openings, strict=True)
            for number in range(self.settings.votes)
        ]
        if self.prompt.question is None:
            return self._ask_verdicts(ballots)
        critiques = self._send([self._request(vote, "critique", self.settings.critique_tokens) for vote in ballots])
        ballots = [
            _with_critique(vote.counting(reply), reply, self.prompt.question(len(vote.item.steps)))
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
        return [vote if vote.verdict is not None else _with_verdict(vote, next(replies)) for vote in ballots]

    def _request(self, vote: _Vote, turn: str, max_tokens: int) -> ChatRequest:
        key = keyed_hash(self.settings.seed, turn, vote.number, vote.item.problem.prompt, vote.item.text)
        seed = int.from_bytes(key, "big") >> 1  # in [0, 2^31)
        return ChatRequest(vote.messages, max_tokens, self.settings.temperature, seed)

    def _send(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        return self.chat(requests) if requests else []

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

    def counting(self, reply: ChatReply) -> _Vote:
        return replace(
            self,
            prompt_tokens=self.prompt_tokens + reply.prompt_tokens,
            completion_tokens=self.completion_tokens + reply.completion_tokens,
        )


def _with_critique(vote: _Vote, reply: ChatReply, question: str) -> _Vote:
    if reply.error or not reply.text.strip():
        reason = reply.error or "the judge's critique is empty"
        return replace(vote, verdict=Verdict.abstain(reason), failed=bool(reply.error))
    # The judge may quote what it read, or spell out what was rewritten there: its words are text of others, too.
    critique = Message("assistant", sanitize(reply.text).strip())
    return replace(vote, messages=(*vote.messages, critique, Message("user", question)))


def _with_verdict(vote: _Vote, reply: ChatReply) -> _Vote:
    verdict = Verdict.abstain(reply.error) if reply.error else parse(reply.text, len(vote.item.steps))
    return replace(vote.counting(reply), verdict=verdict, failed=bool(reply.error))
