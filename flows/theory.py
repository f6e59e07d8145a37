"""theory: how many updates do GRPO and SGPO need until a policy succeeds? Exact, nothing is trained or sampled.

K independent steps, each with a logit ──▶ expected update, enumerated ──▶ tables (standard output), theory.png

docs/theory.md derives the formulas and says what they leave out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tasks.paths import home
from tasks.reports.theory import draw_theory, tables


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m flows.theory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--group-size",
        type=int,
        default=8,
        metavar="G",
        help="responses a group, 2 to 16 (8 takes seconds, 16 half a minute) [8]",
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help=f"where the picture goes [{home() / 'theory'}]")
    options = parser.parse_args()
    if not 2 <= options.group_size <= 16:
        parser.error(f"--group-size is between 2 and 16, got {options.group_size}")
    print(f"{tables(options.group_size)}\n", flush=True)
    picture = (options.out or home() / "theory").absolute() / "theory.png"
    try:
        draw_theory(picture, options.group_size)
    except OSError as error:
        sys.exit(f"error: can't write the picture ({error}): choose another folder with --out")
    print(f"picture   {picture}")


if __name__ == "__main__":
    main()
