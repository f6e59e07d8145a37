"""Does the grader accept other ways to write a gold answer, and refuse near misses?  `python -m bench.golds FILE`

FILE is .jsonl, one gold answer a line: {"set": "math500", "gold": "x=5"}. Prints two Markdown tables, sets in rows
and kinds in columns: rewritings that are accepted of how many there are, near misses that are refused. Then every
one that is not. What the kinds are: sgpo_core/grading/rewritings.py and near_misses.py.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from sgpo_core.grading import near_misses, rewritings
from sgpo_core.grading.grader import GRADER, AnswerGrader
from sgpo_core.grading.rewritings import Variant
from sgpo_core.types import Outcome

CHUNK = 200  # answers between two steps of the progress bar


@dataclass(frozen=True, slots=True)
class Trial:
    """An answer to a gold one of a set, what should become of it and what did."""

    name: str
    gold: str
    variant: Variant
    accept: bool
    outcome: Outcome

    @property
    def right(self) -> bool:
        return (self.outcome is Outcome.CORRECT) == self.accept


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="gold answers, .jsonl with the keys set and gold")
    parser.add_argument("--workers", type=int, default=1, help="processes that compare [1]")
    options = parser.parse_args()
    golds = list(read(options.file))
    trials = run(golds, options.workers)
    print(f"{GRADER}, {len(golds)} gold answers, {len(trials)} answers\n")
    for accept, heading in ((True, "accepted rewritings"), (False, "refused near misses")):
        kinds = ["self", *rewritings.RULES] if accept else list(near_misses.RULES)
        print(f"{heading}:\n\n{table([trial for trial in trials if trial.accept == accept], kinds)}\n")
    print(failures(trials))


def read(path: Path) -> Iterator[tuple[str, str]]:
    """Set and gold answer of each line. ValueError names a line that has not both."""
    for i, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        row = json.loads(line)
        if not isinstance(row, dict) or not {"set", "gold"} <= row.keys():
            raise ValueError(f'{path}, line {i}: want {{"set": ..., "gold": ...}}, got {line[:80]}')
        yield str(row["set"]), str(row["gold"])


def run(golds: Sequence[tuple[str, str]], workers: int) -> list[Trial]:
    """Grades everything that the rules make of the gold answers."""
    planned = [
        (name, gold, variant, accept)
        for name, gold in golds
        for accept, variants in ((True, rewritings.rewritings(gold)), (False, near_misses.near_misses(gold)))
        for variant in variants
    ]
    trials = []
    with AnswerGrader(workers) as grader, tqdm(total=len(planned), unit="answer") as bar:
        for start in range(0, len(planned), CHUNK):
            part = planned[start : start + CHUNK]
            grades = grader.grade([(gold, f"\\boxed{{{variant.answer}}}") for _, gold, variant, _ in part])
            trials += [Trial(*plan, grade.outcome) for plan, grade in zip(part, grades, strict=True)]
            bar.update(len(part))
    return trials


def table(trials: Sequence[Trial], kinds: Sequence[str]) -> str:
    """Markdown: right of how many, by set and kind; kinds with no answers are left out."""
    kinds = [kind for kind in kinds if any(trial.variant.kind == kind for trial in trials)]
    lines = [f"| set | {' | '.join(kinds)} | all |", "|---" * (len(kinds) + 2) + "|"]
    for name in [*dict.fromkeys(trial.name for trial in trials), "all"]:
        of_set = [trial for trial in trials if name in (trial.name, "all")]
        cells = [share([trial for trial in of_set if trial.variant.kind == kind]) for kind in kinds]
        lines.append(f"| {name} | {' | '.join([*cells, share(of_set)])} |")
    return "\n".join(lines)


def share(trials: Sequence[Trial]) -> str:
    return f"{sum(trial.right for trial in trials)}/{len(trials)}" if trials else ""


def failures(trials: Sequence[Trial]) -> str:
    """Markdown: what should have been accepted or refused and was not."""
    if all(trial.right for trial in trials):
        return "Nothing failed."
    lines = ["| set | kind | gold | answer | should be | is |", "|---|---|---|---|---|---|"]
    for trial in trials:
        if not trial.right:
            gold, answer = (f"`{text.replace('|', chr(92) + '|')}`" for text in (trial.gold, trial.variant.answer))
            wanted = "accepted" if trial.accept else "refused"
            lines.append(f"| {trial.name} | {trial.variant.kind} | {gold} | {answer} | {wanted} | {trial.outcome} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
