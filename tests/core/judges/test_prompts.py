"""The prompts' exact texts, the structure that no response can forge, and how verdicts are read."""

from __future__ import annotations

import hashlib
import re

import pytest

from sgpo_core.data.segmentation import segment
from sgpo_core.judges.base import Item
from sgpo_core.judges.injections import Twin, twins
from sgpo_core.judges.prompts import MARKER, PROMPTS, choices, parse
from sgpo_core.types import Problem, Verdict

TWINS = twins()
PROBLEM = Problem("p", "Compute 19 + 11.\n", "30", "Step 1: 9 + 1 + 0 = 10\nStep 2: 1 + 1 + 1 = 3\nAnswer: \\boxed{30}")
ITEM = Item(PROBLEM, tuple(segment("Step 1: 9 + 1 + 0 = 10\nStep 2: 1 + 1 + 0 = 2\nAnswer: \\boxed{20}")))


def marker(item: Item, reference: bool = True) -> str:
    (message,) = PROMPTS["marker-v1"].messages(item, reference, 0)
    assert message.role == "user"
    return message.content


def critique(item: Item, reference: bool = True, seed: int = 0) -> tuple[str, str]:
    system, user = PROMPTS["critique-v2"].messages(item, reference, seed)
    assert (system.role, user.role) == ("system", "user")
    return system.content, user.content


def code_of(system: str) -> str:
    (code,) = re.findall(r"end in the code ([0-9a-f]{8}),", system)
    return code


def test_marker_in_full() -> None:
    response = "Step 1: 9 + 1 + 0 = 10\nStep 2: 1 + 1 + 0 = 2\nAnswer: \\boxed{20}\nFirst wrong step: "
    assert marker(ITEM) == (
        "Compute 19 + 11.\n"
        "Reference:\nStep 1: 9 + 1 + 0 = 10\nStep 2: 1 + 1 + 1 = 3\nAnswer: \\boxed{30}\n"
        "Response:\n" + response
    )
    without = "Compute 19 + 11.\nResponse:\n" + response
    assert marker(ITEM, reference=False) == without
    assert marker(Item(Problem("p", "Compute 19 + 11.", "30", None), ITEM.steps)) == without  # a line break is added
    assert PROMPTS["marker-v1"].question is None


def test_a_step_of_several_lines_is_one_line_of_the_marker_prompt() -> None:
    item = Item(Problem("p", "?", ""), tuple(segment("One line\nand more. First wrong\nstep: 7\n\nTwo.\n")))
    assert len(item.steps) == 2
    assert marker(item) == "?\nResponse:\nOne line and more. First wrong step› 7\nTwo.\nFirst wrong step: "


def test_critique_in_full() -> None:
    system, user = critique(ITEM)
    code = code_of(system)
    assert user.startswith(
        f"<problem-{code}>\nCompute 19 + 11.\n</problem-{code}>\n\n"
        f"<reference-{code}>\n{PROBLEM.reference}\n</reference-{code}>\n\n"
        f"<step-1-{code}>\nStep 1: 9 + 1 + 0 = 10\n</step-1-{code}>\n\n"
        f"<step-2-{code}>\nStep 2: 1 + 1 + 0 = 2\n</step-2-{code}>\n\n"
        f"<step-3-{code}>\nAnswer: \\boxed{{20}}\n</step-3-{code}>\n\nGo through the steps"
    )
    assert "reference" not in critique(ITEM, reference=False)[1]
    question = PROMPTS["critique-v2"].question
    assert question is not None
    assert 'from 1 to 3, or with "none"' in question(3)


def test_the_code_is_the_same_again_and_another_for_another_response_or_seed() -> None:
    other = Item(PROBLEM, ITEM.steps[:2])
    codes = {code_of(critique(item, seed=seed)[0]) for item in (ITEM, other) for seed in (0, 1)}
    assert len(codes) == 4
    assert critique(ITEM) == critique(ITEM)


SPECIAL = re.compile(
    r"<\|[^\s|<>]+\|>|<｜[^\s<>]+>|\[/?INST\]|<<?/?(?:SYS|s|eos|pad|think|start_of_turn|end_of_turn)>"
    r"|\[\|[a-z]+\|\]|\[(?:UNUSED_TOKEN|control)_\d+\]|\[TOOL_CALLS\]|\[gMASK\]|>>[A-Z]+<<|\]~b\]|\[e~\[|◁/?think▷"
)


@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.injection.name)
def test_no_injection_changes_the_structure(twin: Twin) -> None:
    # The injected text also as problem and reference: sets come from elsewhere, too.
    text = twin.injection.text
    steps = twin.injected.steps
    hostile = Item(Problem("h", f"What?\n{text}", "", f"So.\n{text}"), steps)
    for item in (twin.injected, hostile):
        system, user = critique(item)
        code = code_of(system)
        names = ["problem", "reference", *(f"step-{i}" for i in range(1, len(steps) + 1))]
        assert re.findall(rf"<(/?[\w-]+)-{code}>", user) == [tag for name in names for tag in (name, f"/{name}")]
        assert user.count("</") == len(names)
        prompt = marker(item)
        assert prompt.endswith(f"\n{MARKER}")
        assert len(re.findall(r"first wrong step:", prompt, re.IGNORECASE)) == 1
        assert prompt.count("Reference:\n") == prompt.count("Response:\n") == 1
        lines = prompt.partition("Response:\n")[2].splitlines()
        assert len(lines) == len(steps) + 1
        for rendered in (user, prompt):
            assert not SPECIAL.search(rendered)
            assert all(c.isprintable() or c in "\n\t\u3000" for c in rendered)


def test_choices() -> None:
    assert choices(3) == ("none", "1", "2", "3")
    assert [parse(choice, 3) for choice in choices(3)] == [Verdict(None), Verdict(1), Verdict(2), Verdict(3)]


@pytest.mark.parametrize(
    ("text", "step"),
    [
        (" 2\n", 2),
        ("None.", None),
        ("**3**", 3),
        ("Step 3.", 3),
        ('"none"', None),
        ("First wrong step: 2", 2),
        ("**First wrong step:** 2", 2),
        ("- The first wrong step is step 2.", 2),
        ("Step 1 is right.\nStep 2 has 1 + 1 = 3.\n\nFirst error: 2\n", 2),
        ("Verdict: none", None),
        ("First wrong step: 1\nNo, on reflection:\nFirst incorrect step: none", None),
        ("first wrong step = `3`", 3),
        ("First wrong step: 3 (carry lost)", 3),
        ("**First wrong step:** 3 (the carry, which is 1, is lost)", 3),
        ("\\boxed{3}", 3),
        ("First wrong step: \\boxed{\\text{none}}", None),
        ("Step 2 is wrong: 1 + 1 = 3.\nFirst wrong step: 2", 2),
        ("Step 3 is wrong, and so was step 2, but step 1 is wrong, too.\nVerdict: 1", 1),
    ],
)
def test_plain_text_verdicts(text: str, step: int | None) -> None:
    assert parse(text, 3) == Verdict(step)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no verdict"),
        ("All steps are correct.", "no verdict"),
        ("1 2", "no verdict"),
        ("Step 1 is right. Step 2 is wrong.", "no verdict"),
        ("I don't think the first wrong step is 2", "no verdict"),
        ('{"first_wrong_step": 2}', "no verdict"),
        ("First wrong step: 2 or 3", "not clear"),
        ("First wrong step: 2\nFirst wrong step: hard to say", "not clear"),
        ("First wrong step:", "not clear"),
        ("Step 3 is wrong, though the solution says\nFirst wrong step: none", "calls step 3 wrong"),
        ("**Step 1** is incorrect.\nFirst wrong step: 2", "calls step 1 wrong"),
        ("First wrong step: 2 (or 3), hard to say", "not clear"),
        ("It seems to me:\nThe first wrong step is 2", "no verdict"),
        ("0", "named step 0 of 3"),
        ("-1", "named step -1 of 3"),
        ("4", "named step 4 of 3"),
        ("First wrong step: 99", "named step 99 of 3"),
        ("9" * 5000, "no verdict"),
        ("First wrong step: " + ":" * 5000, "not clear"),
        ("First wrong step: " + ":" * 1_000_000, "no verdict"),
        ("\u0662", "no verdict"),  # a digit, but none that was offered
    ],
)
def test_what_is_no_verdict_is_an_abstention(text: str, reason: str) -> None:
    verdict = parse(text, 3)
    assert verdict.abstained
    assert reason in verdict.reason


def test_a_prompt_with_a_version_does_not_change() -> None:
    """Verdicts are cached under these names: whoever changes a text gives it a new name, and a line here."""

    def digest(name: str) -> str:
        prompt = PROMPTS[name]
        texts = [m.content for reference in (True, False) for m in prompt.messages(ITEM, reference, 0)]
        texts += [prompt.question(3)] if prompt.question else []
        return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]

    assert {name: digest(name) for name in PROMPTS} == {
        "critique-v2": "5483e69c1e2af9a2",
        "marker-v1": "100a4ed5761e5828",
    }
