"""What decides a result, and the name that it gives."""

from __future__ import annotations

from pydantic import Field

from sgpo_core.config.base import Operational, Positive, Settings, fingerprint


class Machine(Settings):
    cores: Positive = 4


class Inner(Settings):
    rate: float = 0.5
    workers: Operational[Positive] = Field(2, description="at a time")


class Outer(Settings):
    pair: tuple[float, float] = (0.9, 0.98)
    inner: Inner = Inner()
    machine: Operational[Machine] = Machine()
    name: Operational[str] = "x"


def test_operational_settings_do_not_decide() -> None:
    assert Outer().deciding() == {"pair": [0.9, 0.98], "inner": {"rate": 0.5}}
    assert Outer(name="y", machine=Machine(cores=1), inner=Inner(workers=9)).deciding() == Outer().deciding()
    assert Outer(inner=Inner(rate=0.25)).deciding() == {"pair": [0.9, 0.98], "inner": {"rate": 0.25}}


def test_a_fingerprint_is_ten_digits_of_the_values_whatever_their_order() -> None:
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert len({fingerprint(value) for value in ({"a": 1}, {"a": 2}, {"b": 1}, ["a", 1])}) == 4
    # printf '{"a": 1}' | sha256sum | head -c 10
    assert fingerprint({"a": 1}) == "f9d86028c6"
