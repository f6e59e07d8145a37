"""theory: how many updates do GRPO and SGPO need until a policy succeeds? Exact, nothing is trained or sampled.

K independent steps, each with a logit ──▶ expected update, enumerated ──▶ tables (standard output), theory.png

docs/theory.md derives the formulas and says what they leave out.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, which take seconds
    from flows.cli import main

    main("theory")

from pathlib import Path

from sgpo_core.config.base import ConfigError
from tasks.paths import home
from tasks.reports.theory import draw_theory, tables


def theory(group_size: int, out: Path | None) -> None:
    """Prints the tables, then the path of the picture."""
    print(f"{tables(group_size)}\n", flush=True)
    picture = (out or home() / "theory").absolute() / "theory.png"
    try:
        draw_theory(picture, group_size)
    except OSError as error:
        raise ConfigError(f"can't write the picture ({error}): choose another folder with --out") from None
    print(f"picture   {picture}")
