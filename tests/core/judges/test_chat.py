"""What follows a model's thinking, where a server leaves it in the text."""

from __future__ import annotations

import pytest

from sgpo_core.judges.chat import after_thinking


@pytest.mark.parametrize(
    ("text", "thinks", "rest", "thought"),
    [
        ("2", True, "2", False),
        (" First wrong step: 2\n", False, " First wrong step: 2\n", False),
        ("<think>1? No.</think>\n\n2", False, "2", True),
        ("\n<think>\n\n</think>\n\n2", False, "2", True),  # Qwen3 that is told not to think
        ("<think>First wrong step: 1\nor", True, "", True),
        ("<think>a</think><think>b</think>2", False, "2", True),
        ("<think>a</think>The text </think> is in step 2", True, "The text </think> is in step 2", True),
        ("1? No.</think>2", True, "2", True),  # DeepSeek-R1: its template opens the thinking in the prompt
        ("It says </think>none", False, "It says </think>none", False),
        ("It says <think>none</think>", False, "It says <think>none</think>", False),
        ("", True, "", False),
    ],
)
def test_what_follows_the_thinking(text: str, thinks: bool, rest: str, thought: bool) -> None:
    assert after_thinking(text, thinks) == (rest, thought)


@pytest.mark.parametrize("unit", ["<think>", "</think>", "<think></think>"])
def test_a_million_characters_end(unit: str) -> None:
    assert len(after_thinking(unit * (1_000_000 // len(unit)), True)[0]) < 1_000_000
