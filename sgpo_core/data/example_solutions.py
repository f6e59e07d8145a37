"""Solutions in the styles that language models write, to look at how they are cut into steps.

`python -m sgpo_core.data.example_solutions` prints the table of docs/steps.md. A `¦` stands where a mathematician would
begin a step: `EXAMPLES` has the texts without these marks, `EXPECTED` where they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from sgpo_core.data.format_gate import malformed
from sgpo_core.data.marked_solutions import MARKED
from sgpo_core.data.segmentation import SEGMENTER, segment

MARK = "¦"
EXAMPLES = {name: text.replace(MARK, "") for name, text in MARKED.items()}
EXPECTED = {name: [mark.start() - i for i, mark in enumerate(re.finditer(MARK, text))] for name, text in MARKED.items()}


def as_markdown() -> str:
    """Of each example: the steps that a mathematician sees, those of the segmenter and of each simpler way, what the
    format gate says, and where the segmenter begins its steps, as Markdown."""
    ways: dict[str, Callable[[str], int]] = {
        SEGMENTER: lambda text: len(segment(text)),
        "lines": lambda text: _pieces(r"\n", text),
        "paragraphs": lambda text: _pieces(r"\n[ \t\r]*\n\s*", text),
        "sentences": lambda text: _pieces(r"(?<=[.!?])\s+", text),
    }
    header = f"| solution | a mathematician | {' | '.join(ways)} | format gate | its steps begin with |"
    lines = [header, "|" + "---|" * (len(ways) + 4)]
    for name, text in EXAMPLES.items():
        counts = [str(len(EXPECTED[name]) + 1), *(str(way(text)) for way in ways.values())]
        begins = " ".join(f"`{_beginning(step.text)}`" for step in segment(text))
        lines.append(f"| {' | '.join([name, *counts, malformed(text) or 'passes', begins])} |")
    return "\n".join(lines)


def _pieces(separator: str, text: str) -> int:
    return sum(bool(piece.strip()) for piece in re.split(separator, text))


def _beginning(text: str, length: int = 12) -> str:
    return " ".join(text.replace("|", "\\|").replace("`", "'").split())[:length].strip()


if __name__ == "__main__":
    print(as_markdown())
