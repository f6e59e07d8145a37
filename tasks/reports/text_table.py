"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def text_table(rows: Sequence[Sequence[str]], right: bool = False) -> str:
    """Rows as aligned text, the first one as the head, with a line below it. `right` aligns all but the first column
    to the right, as numbers want it."""
    widths = [max(len(row[c]) for row in rows) for c in range(len(rows[0]))]

    def line(row: Sequence[str]) -> str:
        cells = [
            cell.rjust(width) if right and c else cell.ljust(width)
            for c, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    lines = [line(row) for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
