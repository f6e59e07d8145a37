"""What all settings are made of."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Final, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]

# What folders, MLflow's experiments and its queries are named by: no path, no quotes.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_ .:+-]*$", max_length=100)]
# Folders beside those of the experiments in SGPO_HOME.
_TAKEN = (
    *("datasets", "evaluations", "mlartifacts", "models", "prefect", "registry", "responses", "services"),
    *("theory", "warm-starts"),
)


def _free(name: str) -> str:
    if name in _TAKEN:
        raise ValueError(f"{name} is the name of another folder in SGPO_HOME: choose another")
    return name


Experiment = Annotated[Name, AfterValidator(_free)]

T = TypeVar("T")
OPERATIONAL: Final = "operational"
# A setting that does not decide the result of a run: how the work is spread, how much memory it may take, what is kept,
# when somebody is warned. It is no part of the run's id, so that a run goes on after it was changed.
Operational = Annotated[T, OPERATIONAL]


class ConfigError(ValueError):
    """A setting is wrong; the message names it and says what to do."""


class Settings(BaseModel):
    """Frozen; unknown keys, infinities and NaN are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    def deciding(self) -> dict[str, Any]:
        """The settings that decide a result, nested, as JSON has them: all but the `Operational` ones."""
        values = self.model_dump(mode="json")
        return {
            name: _deciding(getattr(self, name), values[name])
            for name, field in type(self).model_fields.items()
            if OPERATIONAL not in field.metadata
        }


def _deciding(value: Any, as_json: Any) -> Any:
    if isinstance(value, Settings):
        return value.deciding()
    if isinstance(value, dict):
        return {name: _deciding(inner, as_json[name]) for name, inner in value.items()}
    return as_json


def fingerprint(value: Any) -> str:
    """Ten hexadecimal digits of what can be written as JSON; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]
