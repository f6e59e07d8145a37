"""`chains`: column-wise long addition, the embedded problem set (no download, any size, an exact judge).

    Compute 284471 + 936979.
    Step 1: 1 + 9 + 0 = 10
    Step 2: 7 + 7 + 1 = 15
    ...
    Answer: \\boxed{1221450}

Step i adds the i-th digits from the right and the carry into that column. The habitual error, a *slip*, is to forget
that carry (`+ 0` where it is 1). Wrong digits can't cancel, so a response whose answer is right but one of whose steps
is wrong is rare, and the number of correct leading steps is a fair measure of how far a response got.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from sgpo_core.types import Problem

_PROMPT = re.compile(r"Compute (\d+) \+ (\d+)\.")
# "Step 1: ", not "Step", " ", "1", ":": one piece a habit, so that a very small policy can learn the format.
MAX_COLUMNS = 12


@dataclass(frozen=True, slots=True)
class Trace:
    """A worked solution as its lines (steps 1..K, then the answer line), each ending in a newline but the last."""

    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return "".join(self.lines)


def vocabulary(columns: int = 6) -> list[str]:
    """The word-level pieces that spell every prompt and trace of up to `columns` columns; specials come first."""
    digits = [str(d) for d in range(10)]
    steps = [f"Step {i}: " for i in range(1, columns + 1)]
    return ["<pad>", "<eos>", *digits, *steps, " + ", " = ", "\n", "Answer: \\boxed{", "}", "Compute ", ".\n"]


def sample_operands(rng: random.Random, columns: int, carry_rate: float) -> tuple[int, int]:
    """Two numbers of `columns` digits; each column's digits sum to 10 or more with probability `carry_rate`.

    Conditioning on the digits' own sum (not on the carry that comes in) makes the columns independent.
    """
    a = b = 0
    for column in range(columns):
        top = column == columns - 1  # its digits are not 0, so that every number has `columns` digits
        carries = rng.random() < carry_rate
        pairs = [
            (x, y) for x in range(1 if top else 0, 10) for y in range(1 if top else 0, 10) if (x + y >= 10) == carries
        ]
        x, y = rng.choice(pairs)
        a, b = a + x * 10**column, b + y * 10**column
    return a, b


def prompt(a: int, b: int) -> str:
    """The problem as the policy reads it."""
    return f"Compute {a} + {b}.\n"


def operands(text: str) -> tuple[int, int] | None:
    """The two numbers of a `chains` prompt; None for any other prompt."""
    match = _PROMPT.fullmatch(text.strip())
    return (int(match[1]), int(match[2])) if match else None


def solve(a: int, b: int, rng: random.Random | None = None, slip_rate: float = 0.0, noise: float = 0.0) -> Trace:
    """A trace for a + b. Each incoming carry is forgotten with probability `slip_rate`; with probability `noise` a
    step's sum is replaced by a random one. Later lines go on from the written (wrong) ones, as a policy's do."""
    rng = rng or random.Random(0)
    columns = max(len(str(a)), len(str(b)))
    carry, digits, lines = 0, [], []
    for column in range(columns):
        x, y = a // 10**column % 10, b // 10**column % 10
        written_carry = 0 if carry and rng.random() < slip_rate else carry
        total = x + y + written_carry
        if rng.random() < noise:
            total = rng.randrange(20)
        lines.append(f"Step {column + 1}: {x} + {y} + {written_carry} = {total}\n")
        digits.append(total % 10)
        carry = total // 10
    answer = "".join(str(d) for d in reversed(digits))
    answer = ("1" if carry else "") + answer
    lines.append(f"Answer: \\boxed{{{answer}}}")
    return Trace(tuple(lines))


def make_problems(count: int, seed: int, columns: int = 6, carry_rate: float = 0.9) -> list[Problem]:
    """`count` different problems, the same for the same arguments."""
    if not 1 <= columns <= MAX_COLUMNS:
        raise ValueError(f"chains: columns must be between 1 and {MAX_COLUMNS}, got {columns}")
    rng = random.Random(f"chains/{seed}/{columns}/{carry_rate}")
    seen: set[tuple[int, int]] = set()
    for _ in range(100 * count):
        if len(seen) == count:
            break
        seen.add(sample_operands(rng, columns, carry_rate))
    if len(seen) < count:
        raise ValueError(f"chains: there are fewer than {count} different problems of {columns} columns: ask for fewer")
    # A set of int tuples iterates in an order of its own; sorting and shuffling makes it the seed's order alone.
    pairs = sorted(seen)
    rng.shuffle(pairs)
    return [
        Problem(id=f"chains-{a}+{b}", prompt=prompt(a, b), answer=str(a + b), reference=solve(a, b).text)
        for a, b in pairs
    ]


def answer_follows_steps(text: str) -> bool:
    """Whether the answer line spells the digits of the response's own steps (right or wrong), with their last carry."""
    sums = re.findall(r"Step \d+: \d+ \+ \d+ \+ \d+ = (\d+)\n", text)
    answer = re.search(r"Answer: \\boxed\{(\d+)\}\s*$", text)
    if not sums or not answer:
        return False
    digits = "".join(str(int(s) % 10) for s in reversed(sums))
    return answer[1] == ("1" if int(sums[-1]) >= 10 else "") + digits
