"""Imports of large packages, of which every process of a run makes its own."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """What is imported in the block takes a quarter less time: the garbage collector would go through the objects of
    all modules again and again, and hardly one of them is garbage. Its later passes leave them out, too."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        atexit.register(gc.unfreeze)  # or libraries would report at the end what nobody has collected
        gc.enable()
