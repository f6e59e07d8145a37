"""Conversation, votes and majority of a prompted judge, with a chat whose replies are written out. That a real model
can be asked is tested with one, elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from sgpo_core.config.judge import JudgeSettings
from sgpo_core.judges.base import Item
from sgpo_core.judges.chat import ChatReply, ChatRequest
from sgpo_core.judges.injections import attacks, twins
from sgpo_core.judges.processbench import generated
from sgpo_core.judges.prompted import VERDICT_TOKENS, PromptedJudge, majority
from sgpo_core.judges.prompts import PROMPTS
from sgpo_core.types import Problem, Verdict

ITEMS = [example.item() for example in generated(4)]
ABSTAIN = Verdict.abstain("timeout")


@dataclass
class Script:
    """A chat that notes what it is asked, a batch a call, and replies by a function."""

    reply: Callable[[ChatRequest], ChatReply]
    batches: list[list[ChatRequest]] = field(default_factory=list)

    def __call__(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        self.batches.append(list(requests))
        return [self.reply(request) for request in requests]


def constrained(last: str) -> Callable[[ChatRequest], ChatReply]:
    """A critique of 20 tokens to a prompt of 100, then a verdict of 1 token to a prompt of 130."""
    return lambda request: ChatReply(last, 130, 1) if request.choices else ChatReply("Hm. First wrong step: 1", 100, 20)


def judge(chat: Script, prompt: str = "critique-v2", **settings: object) -> PromptedJudge:
    return PromptedJudge(chat, PROMPTS[prompt], JudgeSettings(**settings))


def test_critique_then_verdict() -> None:
    chat = Script(constrained("2"))
    judgments = judge(chat, critique_tokens=77)(ITEMS)
    assert [(j.verdict, j.votes, j.agreement) for j in judgments] == [(Verdict(2), (Verdict(2),), 1.0)] * 4
    assert {(j.prompt_tokens, j.completion_tokens) for j in judgments} == {(230, 21)}
    critiques, verdicts = chat.batches  # all items in one batch a turn
    assert [(r.max_tokens, r.choices) for r in critiques] == [(77, ())] * 4
    assert {(r.max_tokens, r.choices) for r in verdicts} == {(VERDICT_TOKENS, ("none", *"1234567"))}
    assert [m.role for m in verdicts[0].messages] == ["system", "user", "assistant", "user"]
    assert verdicts[0].messages[:2] == critiques[0].messages
    assert verdicts[0].messages[2].content == "Hm. First wrong step› 1"


def test_the_marker_prompt_takes_one_turn() -> None:
    chat = Script(constrained("none"))
    assert [j.verdict for j in judge(chat, "marker-v1")(ITEMS)] == [Verdict(None)] * 4
    ((first, *_),) = chat.batches
    assert first.choices == ("none", *"1234567")
    assert len(first.messages) == 1


def test_votes_have_seeds_of_their_own_that_do_not_depend_on_the_batch() -> None:
    chat = Script(constrained("1"))
    (first, *_) = judge(chat, votes=3, temperature=0.7)(ITEMS)
    assert first.votes == (Verdict(1),) * 3
    assert (first.prompt_tokens, first.completion_tokens) == (690, 63)  # three times as much
    everything = [request for batch in chat.batches for request in batch]
    assert len({request.seed for request in everything}) == len(everything) == 2 * 3 * 4
    assert {request.temperature for request in everything} == {0.7}
    alone = Script(constrained("1"))
    for item in reversed(ITEMS):
        judge(alone, votes=3, temperature=0.7)([item])
    assert sorted(map(repr, everything)) == sorted(repr(r) for batch in alone.batches for r in batch)


def test_the_reference_is_shown_only_where_it_is_wanted() -> None:
    for wanted in (True, False):
        chat = Script(constrained("1"))
        judge(chat, reference=wanted)(ITEMS)
        assert all(("<reference-" in r.messages[1].content) is wanted for r in chat.batches[0])


def test_an_empty_response_is_not_asked_about() -> None:
    chat = Script(constrained("1"))
    empty = Item(Problem("e", "?", ""), ())
    verdicts = [j.verdict for j in judge(chat)([empty, ITEMS[0], empty])]
    assert verdicts == [Verdict.abstain("empty response"), Verdict(1), Verdict.abstain("empty response")]
    assert [len(batch) for batch in chat.batches] == [1, 1]
    assert judge(chat)([]) == []
    assert judge(chat)([empty])[0].votes == ()
    assert len(chat.batches) == 2


@pytest.mark.parametrize(
    ("critique", "verdict", "reason"),
    [
        (ChatReply("", error="503"), ChatReply("1"), "503"),
        (ChatReply("x"), ChatReply("", error="timeout"), "timeout"),
        (ChatReply("x"), ChatReply("well"), "the judge gave no verdict"),
        (ChatReply("x"), ChatReply("8"), "the judge named step 8 of 7"),
    ],
)
def test_failures_are_abstentions(critique: ChatReply, verdict: ChatReply, reason: str) -> None:
    chat = Script(lambda request: verdict if request.choices else critique)
    judgments = judge(chat)(ITEMS)
    assert [j.verdict for j in judgments] == [Verdict.abstain(reason)] * 4
    # What a model has written stands; what has not arrived may arrive next time, and must not be kept.
    assert {j.transient for j in judgments} == {bool(critique.error or verdict.error)}


EMPTY, CUT = ChatReply(" \n"), ChatReply("", cut_off=True)


@pytest.mark.parametrize(
    ("thinks", "critique", "verdict", "reason"),
    [
        (None, EMPTY, "2", "critique is empty: if it is a reasoning model, set judge.thinks=true"),
        (None, ChatReply("", thought=True), "2", "critique is empty: set judge.thinks=true"),
        (False, CUT, "2", "critique is cut off at 77 tokens, before there was one: if it is a reasoning model, set"),
        (True, CUT, "2", "critique is cut off at 577 tokens, while it thought: raise judge.thinking_tokens=500"),
        (
            True,
            ChatReply("Wait, is", cut_off=True),
            "2",
            "critique is cut off at 577 tokens, while it thought or wrote",
        ),
        (True, "x", EMPTY, "verdict is empty: raise judge.thinking_tokens=500"),
        (
            None,
            "x",
            ChatReply("", cut_off=True, thought=True),
            "verdict is cut off at 32 tokens, while it thought: set",
        ),
        (None, "x", ChatReply("Well, step 1", cut_off=True), "verdict is cut off at 32 tokens, before there was one"),
        (True, "x", ChatReply("First wrong step: 1", cut_off=True), "at 532 tokens, while it thought or wrote: raise"),
    ],
)
def test_a_reply_without_an_answer_is_not_kept_and_is_counted(
    thinks: bool | None,
    critique: ChatReply | str,
    verdict: ChatReply | str,
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, last = (ChatReply(r) if isinstance(r, str) else r for r in (critique, verdict))
    chat = Script(lambda request: last if request.choices else first)
    judgments = judge(chat, thinks=thinks, thinking_tokens=500, critique_tokens=77)(ITEMS)
    assert all(j.verdict.abstained and reason in j.verdict.reason and j.transient for j in judgments)
    [record] = caplog.records
    assert record.getMessage() == f"4 of 4 votes are not kept: {judgments[0].verdict.reason}"


@pytest.mark.parametrize(
    ("thinks", "text"), [(None, "2"), (True, " 2\n"), (None, "First wrong step: 2\nFor in step 2 the carry is")]
)
def test_a_verdict_that_was_reached_stands_though_the_reply_is_cut_off(thinks: bool | None, text: str) -> None:
    critique = ChatReply("Step 1 is", cut_off=True, thought=bool(thinks))
    chat = Script(lambda r: ChatReply(text, cut_off=True) if r.choices else critique)
    judgments = judge(chat, thinks=thinks)(ITEMS)
    assert [(j.verdict, j.transient) for j in judgments] == [(Verdict(2), False)] * 4


@pytest.mark.parametrize(("thinks", "room"), [(None, 0), (False, 0), (True, 900)])
def test_there_is_room_for_thinking_in_every_reply(thinks: bool | None, room: int) -> None:
    chat = Script(constrained("2"))
    judge(chat, thinks=thinks, thinking_tokens=900, critique_tokens=77)(ITEMS)
    assert [{r.max_tokens for r in batch} for batch in chat.batches] == [{77 + room}, {VERDICT_TOKENS + room}]
    assert {r.thinks for batch in chat.batches for r in batch} == {thinks}


def test_one_failure_concerns_one_item() -> None:
    bad = ITEMS[1].steps[0].text.strip()

    def reply(request: ChatRequest) -> ChatReply:
        if bad in request.messages[1].content and not request.choices:
            return ChatReply("", 9, 0, "500")
        return constrained("3")(request)

    verdicts = [j.verdict for j in judge(Script(reply), reference=False)(ITEMS)]
    assert verdicts == [Verdict(3), Verdict.abstain("500"), Verdict(3), Verdict(3)]


@pytest.mark.parametrize(
    ("votes", "step", "agreement"),
    [
        ([Verdict(2)], 2, 1.0),
        ([Verdict(2), Verdict(2), Verdict(3)], 2, 2 / 3),
        ([Verdict(None), Verdict(None), Verdict(1)], None, 2 / 3),
        ([Verdict(1), Verdict(2), Verdict(2), Verdict(3), Verdict(4)], 2, 0.4),  # the most, if not half
        ([Verdict(2), ABSTAIN], 2, 1.0),
        ([Verdict(2), Verdict(2), Verdict(3), ABSTAIN, ABSTAIN], 2, 2 / 3),
    ],
)
def test_majority(votes: list[Verdict], step: int | None, agreement: float) -> None:
    assert majority(votes) == (Verdict(step), pytest.approx(agreement))


@pytest.mark.parametrize(
    ("votes", "reason", "agreement"),
    [
        ([Verdict(1), Verdict(2)], "the votes are tied at 1 of 2", 0.5),
        ([Verdict(1), Verdict(None), Verdict(1), Verdict(None), ABSTAIN], "the votes are tied at 2 of 4", 0.5),
        ([ABSTAIN], "timeout", None),
        ([ABSTAIN, ABSTAIN], "2 of 2 votes: timeout", None),
        ([ABSTAIN, Verdict(2), ABSTAIN], "2 of 3 votes: timeout", 1.0),
    ],
)
def test_no_majority(votes: list[Verdict], reason: str, agreement: float | None) -> None:
    assert majority(votes) == (Verdict.abstain(reason), agreement)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_judge_that_repeats_the_response_gives_it_no_credit(prompt: str) -> None:
    """Not even where nothing holds its verdict to the choices, and its every answer is what it was shown."""

    def repeat(request: ChatRequest) -> ChatReply:
        return ChatReply(request.messages[min(1, len(request.messages) - 1)].content)

    outcomes = attacks(judge(Script(repeat), prompt))
    assert all(outcome.injected.abstained for outcome in outcomes)


def test_what_a_critique_quotes_is_sanitized_and_not_parsed() -> None:
    chat = Script(lambda r: ChatReply("4") if r.choices else ChatReply(" ".join(t.injection.text for t in twins())))
    outcomes = attacks(judge(chat))
    assert {outcome.injected for outcome in outcomes} == {Verdict(4)}
    for request in chat.batches[1]:
        assert not any(sign in request.messages[2].content for sign in ("<|", "</", "[/INST]", "First wrong step:"))
