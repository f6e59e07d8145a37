"""Settings as MLflow's parameters, by which its page compares, filters and draws runs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_NAME = re.compile(r"[\w.\- ]+", re.ASCII)  # of a parameter, as MLflow takes it
LONGEST = 6000  # characters of a value; MLflow takes no more


def as_parameters(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted key -> value as an override would write it; longer text is cut."""
    found: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value and all(_NAME.fullmatch(name) for name in value):
            found |= as_parameters(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            found[f"{prefix}{key}"] = text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
    return found
