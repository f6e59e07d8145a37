"""What Prefect shows of the flows: the form of their parameters, names of runs, and a line for what is wrong."""

from __future__ import annotations

import logging
from pkgutil import resolve_name
from typing import Any

import jsonschema
import pytest
import yaml
from prefect import Flow, runtime
from prefect.states import Failed

from flows.commands import COMMANDS
from flows.deployment import explained, named_by
from sgpo_core.config.base import ConfigError
from sgpo_core.config.catalog import CONF, presets
from sgpo_core.config.judge_eval import load_judge_eval
from tasks.failures import PartlyFailed

DEPLOYMENTS = yaml.safe_load((CONF.parent / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]


def flow_of(deployment: dict[str, Any]) -> Flow[..., Any]:
    """entrypoint: flows/online.py:online"""
    return resolve_name(deployment["entrypoint"].replace("/", ".").replace(".py:", ":"))


FLOWS = {flow.name: flow for flow in map(flow_of, DEPLOYMENTS)}


@pytest.mark.parametrize("name", FLOWS)
def test_every_field_of_the_form_is_explained(name: str) -> None:
    fields = FLOWS[name].parameters.properties
    assert "overrides" in fields and len(fields) > 2
    for field in fields.values():
        assert field["description"].endswith((".", ").")) and field["type"] in ("string", "array", "boolean")
    assert "=" in fields["overrides"]["description"], "an example"


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: f"{d['entrypoint']} {d['name']}")
def test_every_deployment_is_one_that_the_form_accepts(deployment: dict[str, Any]) -> None:
    flow = flow_of(deployment)
    jsonschema.validate(deployment["parameters"], flow.parameters.model_dump())
    assert flow.validate_parameters(deployment["parameters"]).items() >= deployment["parameters"].items()
    assert len(deployment["description"]) > 20 and "sgpo" in deployment["tags"]


WITH_PRESETS = [name for name, each in COMMANDS.items() if each.is_flow and each.word and each.word.choices]


@pytest.mark.parametrize("name", WITH_PRESETS)
def test_the_form_offers_the_presets(name: str) -> None:
    flow = resolve_name(COMMANDS[name].run)
    assert flow.parameters.properties["preset"]["enum"] == presets(name)


@pytest.mark.parametrize(("field", "wrong"), [("preset", "tinny"), ("overrides", ["seed"]), ("fresh", 3)])
def test_what_the_server_refuses(field: str, wrong: Any) -> None:
    with pytest.raises(jsonschema.ValidationError) as refused:
        jsonschema.validate({field: wrong}, FLOWS["sgpo-online"].parameters.model_dump())
    assert refused.value.path[0] == field


@pytest.mark.parametrize("override", ["seed=1", "+eval.sets.x={k: 3}", "~algorithm.name", 'model.path="a b"'])
def test_what_the_server_takes(override: str) -> None:
    jsonschema.validate({"overrides": [override]}, FLOWS["sgpo-online"].parameters.model_dump())


def test_a_flow_run_is_named_by_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    name = named_by(load_judge_eval, "judge-eval {0.judge.name} on {0.data.path}")
    given = {"preset": "default", "overrides": ["judge=random"]}
    monkeypatch.setattr(runtime.flow_run, "parameters", given, raising=False)
    assert name() == "judge-eval random on chains"
    given["overrides"] = ["judge=nobody"]
    assert name() == "default"


@pytest.mark.parametrize("error", [ConfigError("seed=x: no number"), PartlyFailed("1 of 2 runs failed", {})])
def test_what_is_wrong_is_the_message_of_the_state(error: Exception) -> None:
    def flow() -> dict[str, Any]:
        raise error

    state = explained(flow)()
    assert isinstance(state, type(Failed())) and state.is_failed()
    assert (state.message, state.data) == (str(error), error)


def test_an_error_of_another_kind_keeps_its_traceback() -> None:
    def flow() -> dict[str, Any]:
        raise ValueError("of the code")

    with pytest.raises(ValueError, match="of the code"):
        explained(flow)()


def test_the_log_has_no_traceback_of_what_the_state_says(caplog: pytest.LogCaptureFixture) -> None:
    for error in (ConfigError("seed=x: no number"), ValueError("of the code")):
        try:
            raise error
        except ValueError:  # a ConfigError is one
            logging.getLogger("prefect.engine").error("unexpected", exc_info=True)
    assert [bool(record.exc_info) for record in caplog.records] == [False, True]
