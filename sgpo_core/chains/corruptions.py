"""Wrong `chains` solutions whose first error is known because it was put there: judges are trained and measured on
them."""

from __future__ import annotations

import random
from enum import StrEnum

from sgpo_core.chains import problems as chains


class Error(StrEnum):
    FORGOTTEN_CARRY = "forgotten-carry"  # + 0 where it is + 1
    WRONG_SUM = "wrong-sum"  # off by one or by ten
    MISREAD_DIGIT = "misread-digit"  # another digit than the problem's, summed rightly
    WRONG_ANSWER = "wrong-answer"  # right steps, but the answer line does not spell their digits


def positions(a: int, b: int, error: Error) -> list[int]:
    """The lines of the right solution (counted from 1, the answer line last) where this error can be the first one."""
    lines = chains.solve(a, b).lines
    if error is Error.WRONG_ANSWER:
        return [len(lines)]
    steps = range(1, len(lines))
    return [i for i in steps if " + 1 = " in lines[i - 1]] if error is Error.FORGOTTEN_CARRY else list(steps)


def corrupted(
    a: int, b: int, error: Error, position: int, rng: random.Random, slip_rate: float = 0.0
) -> tuple[str, ...]:
    """The lines of a solution to a + b with its first error at line `position`, one of `positions`. Later lines go on
    from the written ones, as a policy's do, and forget each carry with probability `slip_rate`."""
    carry, digits, lines = 0, "", []
    for column in range(max(len(str(a)), len(str(b)))):
        x, y = a // 10**column % 10, b // 10**column % 10
        here = error if column + 1 == position else None
        if here is Error.FORGOTTEN_CARRY or (column + 1 > position and rng.random() < slip_rate):
            carry = 0
        if here is Error.MISREAD_DIGIT:
            x = rng.choice([digit for digit in range(10) if digit != x])
        total = x + y + carry
        if here is Error.WRONG_SUM:
            total = rng.choice([t for t in (total - 10, total - 1, total + 1, total + 10) if 0 <= t < 20])
        lines.append(f"Step {column + 1}: {x} + {y} + {carry} = {total}\n")
        digits = str(total % 10) + digits
        carry = total // 10
    answer = ("1" if carry else "") + digits
    if error is Error.WRONG_ANSWER:
        answer = _misspelt(answer, rng)
    return (*lines, f"Answer: \\boxed{{{answer}}}")


def _misspelt(number: str, rng: random.Random) -> str:
    """The number without its first digit, or with another digit somewhere."""
    at = rng.randrange(len(number))
    if at == 0 and len(number) > 1:
        return number[1:]
    return number[:at] + rng.choice([d for d in "0123456789" if d != number[at]]) + number[at + 1 :]
