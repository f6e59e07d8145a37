"""Steps of a response, the format gate, and where a step ends among the sampled tokens."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from sgpo_core.chains import problems as chains
from sgpo_core.data.example_solutions import EXAMPLES, EXPECTED, as_markdown
from sgpo_core.data.format_gate import malformed, well_formed
from sgpo_core.data.segmentation import segment, tokens_before

ROOT = Path(__file__).resolve().parents[3]

BOXED = "Answer: \\boxed{4}"
STEPS = "Step 1: 1 + 1 = 2\nStep 2: 2 + 2 = 4\n"


def pieces(text: str) -> list[str]:
    steps = segment(text)
    ends = [0, *(s.end for s in steps)]
    assert [s.start for s in steps] == ends[:-1]
    assert ends[-1] == (len(text) if steps else 0)
    assert [s.text for s in steps] == [text[s.start : s.end] for s in steps]
    assert all(s.text.strip() for s in steps)
    return [s.text for s in steps]


@pytest.mark.parametrize(
    "expected",
    [
        # numbered lines
        ["Step 1: a\n", "Step 2: b\n", "Answer: \\boxed{3}"],
        ["Let me see.\n\n", "Step 1: a. b.\n\nc\n", "Step 2: b"],
        ["  step 1. a\n", "\tstep 2. b"],
        ["1. a\n", "2. b\n", "3. c"],
        ["1) a\n", "2) b\n"],
        ["\n\n1. a\n", "2. b\n\n"],
        ["1. it is 3.14\n", "2. b\n10.5 is no step\n", "3. c"],
        ["Step 1: a\r\n", "Step 2: b\r\n", "Answer: 3\r\n"],
        ["Schritt\n", "Step 1: ∑ é 😀\n", "Step 2: 加\n", "Answer: ½"],
        # numbered in Markdown, in Chinese
        ["### Step 1: a\n\nb\n\n", "### Step 2: c\n\n", "**Final answer:** 3"],
        ["**Step 1:** a\n\nb\n\n", "**Step 2:** c\n", "**Answer: 3**"],
        ["**1.** a\n", "**2.** b"],
        ["第一步：a\n", "第二步：b\n", "答案：3"],
        ["步骤1：a\n", "步骤 2: b\n", "所以是3"],
        ["1、a\n", "2、b"],
        ["1.5 is a number and\nso is 2.5"],
        # paragraphs
        ["One. Two.\n\n", "Three. Four."],
        ["a\n \t\n\n", "b\n\n", "c\n"],
        ["1. a lone number makes no list. So\n\n", "it is paragraphs."],
        # sentences
        ["One. ", "Two! ", "Three?\n", "Four"],
        ["Pi is 3.14 here. ", "Yes."],
        ["Ça va. ", "Ωμέγα? ", "😀"],
        ["One.\r\n", "Two."],
        ["一。", "二！", "三？", "四"],
        ["他说：“一。”", "二。 ", "三！？", "x=1.5。"],
        ["No. 7 is e.g. right. ", "At 4 p.m. it ends. ", "Dr. Lee knows."],
        # lines
        ["One = 1\n", "Two = 2\n", "Three"],
        ["One. Two.\n", "Three.\n", "**Four**\n", "- Five"],
        # items of a list, and what follows a block of code
        ["a:\n\n", "- b\n", "- c\n\n", "d"],
        ["a:\n- b\n- c\n\n", "d"],
        ["* a\n", "* b"],
        ["a\n```\nx\n```\n", "b"],
        # a thinking section, which numbers do not cut, and what follows it
        ["<think>\na\n\n", "1. b\n2. c\n</think>\n\n", "1. d\n", "2. e"],
        ["a \\boxed{1}\n\n", "b\n</think>\n", "c \\boxed{1}\n\nd"],
        ["[THINK]a[/THINK]", "b"],
        ["◁think▷a◁/think▷", "b"],
        ["<seed:think>a</seed:think>", "b"],
        ["<thinking>a</thinking>", "b"],
        ["<think>a\n\n", "b"],
        # a remark behind the answer
        ["a\n\n", "b \\boxed{1}\n\nc\n\nd"],
        # nested, restarting and lone numbers
        ["1. a\n  1. b\n  2. c\n", "2. d"],
        ["## 1. a\n1. b\n", "## 2. c\n1. d"],
        ["Step 1\na\n", "Step 2 - b\n", "Step 3\n"],
        # blocks are not cut, and belong to what they follow
        ["a\n\n\\[\nx\n\ny. z\n\\]\n\n", "b"],
        ["a\n\n$$\nx\n\ny\n$$\n\n", "b"],
        ["a\n\n\\begin{align*}\nx \\\\[2pt]\n\n\\begin{cases}y\\end{cases}\n\n\\end{align*}\n\n", "b"],
        ["a\n\n```python\n1. x\n\n2. y\n```\n\n", "b"],
        ["We get $$x. y$$ here. ", "So."],
        ["1. a\n```\n2. x\n3. y\n```\n", "2. b"],
        # what begins but never ends is no block
        ["a\n\n", "\\[ b\n\n", "c"],
        ["a\n\n", "```\n\n", "c"],
        ["a\n\n", "\\] b\n\n", "\\begin{align} c\n\n", "\\end{cases}"],
        # a line that begins with a minus: an equation below another one, the rest of a formula, an item
        ["4 - 9 = -5\n  ", "-5 - 2 = -7\n", "\\boxed{1}"],
        ["The bill is 100 + 20\n-30 - 10 = 80 dollars.\n", "He pays 80 / 2 = 40.\n", "\\boxed{40}"],
        ["We buy:\n  ", "- red apples\n  ", "- green pears\n", "\\boxed{3}"],
        # one step
        ["hello"],
        ["  hello \n"],
        ["a\nb\nc"],
        ["\\boxed{5}"],
        # none
        [],
    ],
)
def test_pieces(expected: list[str]) -> None:
    assert pieces("".join(expected)) == expected


@pytest.mark.parametrize("blank", ["", " ", "\n", "\r\n \t\n", "\u00a0\u2003"])
def test_a_blank_text_has_no_steps(blank: str) -> None:
    assert pieces(blank) == []


def test_blank_lines_around_a_text_are_not_between_paragraphs() -> None:
    assert pieces("One. Two.") == ["One. ", "Two."]
    assert pieces("One. Two.\n\n") == ["One. ", "Two.\n\n"]
    assert pieces("\n\nOne. Two.") == ["\n\nOne. ", "Two."]


def test_line_ends_of_windows_make_the_same_paragraphs() -> None:
    assert pieces("One. Two.\r\n\r\nThree.") == ["One. Two.\r\n\r\n", "Three."]


@pytest.mark.parametrize(
    "last", [BOXED, "answer 4", "  Final answer: 4.", "ANSWER\n4", "\\boxed{4}", f"{BOXED}\n\nThat is all. Really."]
)
def test_the_answer_line_is_the_last_step(last: str) -> None:
    assert pieces(STEPS + last) == ["Step 1: 1 + 1 = 2\n", "Step 2: 2 + 2 = 4\n", last]


def test_an_answer_before_the_last_numbered_line_is_no_last_step() -> None:
    assert pieces("1. a\nAnswer: 3\n2. b") == ["1. a\nAnswer: 3\n", "2. b"]


def test_steps_joined_are_the_response_whatever_it_is() -> None:
    rng = random.Random(0)
    parts = [*"\n \t}xé😀\x00", "\n\n", "\r\n", ". ", "! ", "Step 1: ", "2. ", "3) ", "Answer", "\\boxed{"]
    for _ in range(2000):
        text = "".join(rng.choices(parts, k=rng.randrange(12)))
        assert "".join(pieces(text)) == (text if text.strip() else "")


WORDS = "some words of a step"


@pytest.mark.parametrize(
    "unit",
    [
        *(
            "x",
            "\n",
            "1",
            ".",
            " x",
            "\n\f",
            "\n\u00a0",
            "\\boxed{1} a.\n\n\n",
            "\nx",
            "\n \n",
            "\r\n",
            "\t1 ",
            "Step ",
            "\\boxed{",
            "answer\n",
        ),
        *(
            "\\[",
            "\\[ x. ",
            "$$ ",
            "```\n",
            "\\begin{align}",
            "\\begin{align}\\end{align}",
            "。",
            "。”",
            "# ",
            "**",
            "第一步：\n",
        ),
        *(f"{WORDS}. ", f"{WORDS}\n\n", f"1. {WORDS}\n", f"Step 1: {WORDS}\nAnswer: "),
    ],
)
def test_time_is_linear(unit: str) -> None:
    def seconds(characters: int) -> float:
        start = time.thread_time()
        for end in ("x", ""):
            text = "x" + unit * (characters // len(unit)) + end
            assert segment(text)[-1].end == len(text)
            assert not well_formed(text)
        return time.thread_time() - start

    assert seconds(200_000) < 100 * max(1e-3, min(seconds(10_000) for _ in range(3)))  # of a square it would be 400


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (STEPS + BOXED, True),
        ("1. a\n2. b\n3. so \\boxed{4}", True),
        ("First this.\n\nThen \\boxed{4}.", True),
        ("It is \\boxed{4}.", True),
        (f"{STEPS}{BOXED}\n", True),
        ("### Step 1: a\n\n### Step 2: b\n\n" + BOXED, True),
        ("第一步：a\n第二步：b\n答案：\\boxed{4}", True),
        ("第一步：a\n第三步：b\n答案：\\boxed{4}", False),
        ("1. a\n```\n7. x\n```\n2. b\n" + BOXED, True),  # no line of code is a step
        ("".join(f"第{n}步：a\n" for n in "一二三四五六七八九") + "第十步：b\n第十一步：c \\boxed{4}", True),
        ("", False),
        (" \n", False),
        (STEPS, False),  # no answer
        (STEPS + BOXED + BOXED, False),  # two
        (f"\\boxed{{2}}\n{STEPS}{BOXED}", False),
        ("Step 1: \\boxed{4}\nStep 2: b\nAnswer: 4", False),  # not in the last step
        ("So \\boxed{4}. Next. Last.", True),  # a remark
        ("a \\boxed{1}\n</think>\n\nb \\boxed{1}", True),
        ("<think>a \\boxed{1}", False),  # no end of it
        ("<think>a</think>\n", False),  # nothing behind it
        ("<think>a</think>b</think> \\boxed{1}", False),
        ("<think>a</think>1. b\n3. c \\boxed{1}", False),
        ("A.\n1. a\n2. b\nB.\n1. c\n2. d\nSo \\boxed{4}", True),  # two lists
        ("1. a\n1. b\n1. c\nSo \\boxed{4}", False),  # no lists
        ("Step 1: a\nStep 3: b\n" + BOXED, False),  # numbering
        ("Step 2: a\nStep 3: b\n" + BOXED, False),
        ("Step 1: a\nStep 1: b\n" + BOXED, False),
        ("Step 2: a\nStep 1: b\n" + BOXED, False),
        ("Step 0: a\nStep 1: b\n" + BOXED, False),
    ],
)
def test_well_formed(text: str, expected: bool) -> None:
    assert well_formed(text) is expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("\n", "empty"),
        ("<think>a", "thinking"),
        ("1. a\n3. b", "numbering"),
        ("a", "no_answer"),
        (BOXED + BOXED, "several_answers"),
        ("1. \\boxed{4}\n2. b", "early_answer"),
    ],
)
def test_what_is_malformed(text: str, reason: str) -> None:
    assert malformed(text) == reason
    assert malformed(text, truncated=True) == (reason if reason in ("empty", "numbering") else None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [(STEPS, True), ("Step 1: 1 +", True), ("Step 1: a\nStep 3: b", False), ("", False), ("\n", False)],
)
def test_of_a_truncated_response_only_the_numbering_counts(text: str, expected: bool) -> None:
    assert well_formed(text, truncated=True) is expected


def test_steps_of_chains_are_its_lines() -> None:
    for problem in chains.make_problems(50, 0):
        assert pieces(problem.reference) == list(chains.solve(*chains.operands(problem.prompt)).lines)


def test_the_documentation_holds_the_comparison() -> None:
    table = as_markdown()
    assert table in (ROOT / "docs" / "steps.md").read_text(encoding="utf-8")
    lines = table.splitlines()
    assert len(lines) == len(EXAMPLES) + 2
    assert [line for line in lines if len(re.findall(r"(?<!\\)\|", line)) != 9] == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_is_cut_as_a_mathematician_would(name: str) -> None:
    assert [step.start for step in segment(EXAMPLES[name])][1:] == EXPECTED[name]
    assert malformed(EXAMPLES[name]) is None


def decoder(tokens: Sequence[bytes]) -> Callable[[Sequence[int]], str]:
    """Decodes as byte-level tokenizers do: an incomplete character becomes one replacement character."""
    return lambda ids: b"".join(tokens[i] for i in ids).decode("utf-8", errors="replace")


@pytest.mark.parametrize(
    ("tokens", "character", "expected"),
    [
        # "ab|cd|e|f": offsets 0..6
        ([b"ab", b"cd", b"e", b"f"], 0, 0),
        ([b"ab", b"cd", b"e", b"f"], 1, 0),  # straddled by "ab"
        ([b"ab", b"cd", b"e", b"f"], 2, 1),
        ([b"ab", b"cd", b"e", b"f"], 3, 1),
        ([b"ab", b"cd", b"e", b"f"], 5, 3),
        ([b"ab", b"cd", b"e", b"f"], 6, 4),
        ([b"ab", b"cd", b"e", b"f"], 99, 4),
        ([], 0, 0),
        # characters, not bytes: "é" and "加" are one each
        ([b"a", "é加".encode(), b"b"], 1, 1),
        ([b"a", "é加".encode(), b"b"], 2, 1),
        ([b"a", "é加".encode(), b"b"], 3, 2),
        # "a😀b", the character spread over four tokens: it ends with the last of them
        ([b"a", b"\xf0", b"\x9f", b"\x98", b"\x80", b"b"], 1, 1),
        ([b"a", b"\xf0", b"\x9f", b"\x98", b"\x80", b"b"], 2, 5),
        ([b"a", b"\xf0", b"\x9f", b"\x98", b"\x80", b"b"], 3, 6),
        # a token that ends one step and begins the next
        ([b"x = 1", b"\nStep", b" 2"], 6, 1),
        # an empty piece, as a special token decodes to, lies before what follows it
        ([b"ab", b"", b"c"], 2, 2),
    ],
)
def test_tokens_before(tokens: list[bytes], character: int, expected: int) -> None:
    assert tokens_before(range(len(tokens)), character, decoder(tokens)) == expected


def test_tokens_before_an_offset_behind_a_character_in_single_bytes() -> None:
    """Tokenizers with byte fallback show each byte of an incomplete character as a replacement character, so that a
    prefix may decode to more characters than a longer one: 0, 1, 2, 3, 4, then 2 of "a😀", then 3."""
    tokens = [b"a", b"\xf0", b"\x9f", b"\x98", b"\x80", b"b"]

    def decode(ids: Sequence[int]) -> str:
        joined = b"".join(tokens[i] for i in ids)
        try:
            return joined.decode()
        except UnicodeDecodeError as error:
            return joined[: error.start].decode() + "\ufffd" * (len(joined) - error.start)

    assert tokens_before(range(6), 2, decode) == 5


def test_tokens_before_decodes_few_prefixes() -> None:
    calls = []

    def decode(ids: Sequence[int]) -> str:
        calls.append(len(ids))
        return "x" * len(ids)

    assert tokens_before(range(4096), 1234, decode) == 1234
    assert len(calls) <= 14  # log2(4097) rounded up, and one to spare
