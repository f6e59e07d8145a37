"""A mistyped setting is answered with the one that was meant."""

from __future__ import annotations

import pytest

from sgpo_core.config.base import ConfigError
from sgpo_core.config.catalog import NAMED, catalog
from sgpo_core.config.overrides import read_overrides
from sgpo_core.config.run import RunConfig, load_run
from sgpo_core.config.suggestions import did_you_mean
from sgpo_core.config.sweep import load_sweep, sweep_runs
from sgpo_core.config.warm_start import load_warm_start

KEYS = [key for key in catalog(RunConfig).settings if key != "preset"]


def refused(*overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        load_run("tiny", overrides)
    return str(error.value)


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("bata=3", "no setting 'bata': did you mean algorithm.credit.beta?"),
        ("group_size=4", "no setting 'group_size': did you mean sampling.group_size?"),  # nothing but its end
        ("train.group_size=4", "no setting 'train.group_size': did you mean sampling.group_size?"),  # of elsewhere
        ("data.path=x", "no setting 'data.path': did you mean model.path? (data has source, subset, task, split, "),
        ("tags.name=x", "no setting 'tags.name': did you mean "),
        ("data.zzz=x", "no setting 'data.zzz': data has source, subset, "),
        ("algorithm.beta=1", "no setting 'algorithm.beta': did you mean algorithm.credit.beta?"),  # a part left out
        ("samplng.group_size=4", "no setting 'samplng.group_size': did you mean sampling.group_size?"),
        ("sampling={groupsize: 4}", "no setting 'sampling.groupsize': did you mean sampling.group_size?"),
        ("algoritm.credit={beta: 1}", "no setting 'algoritm.credit': did you mean algorithm.credit?"),
        ("eval.sets.chains.kk=3", "no setting 'eval.sets.chains.kk': did you mean eval.sets.chains.k?"),
        ("eval.set.chains.k=3", "no setting 'eval.set.chains.k': did you mean eval.sets.chains.k?"),
        ("algoritm=grpo", "no setting 'algoritm': did you mean algorithm?"),
        ("zzz=1", "no setting 'zzz': docs/settings.md lists them"),
        ("~algorithm.credit.bta", "no setting 'algorithm.credit.bta': did you mean algorithm.credit.beta?"),
        ("sampling=4", "sampling=4: sampling is several settings, sampling.problems, sampling.group_size, "),
        ("preset=smol", "preset=smol: the preset is given by itself"),
        ("seed", "'seed' is not key=value: write seed=VALUE"),
        ("sed", "'sed' is not key=value: did you mean seed"),
        ("=3", "'=3' is not key=value: a setting is given as in seed=1"),
        ("algorithm=grop", "algorithm=grop: did you mean grpo? (conf/algorithm has dapo, "),
        ("algorithm=zzz", "algorithm=zzz: there is none of that name (conf/algorithm has dapo, "),
        ("eval=[nine,chians]", "eval=chians: did you mean chains? (conf/eval has "),
        (
            "algorithm.credit.scope=al_negative",
            "algorithm.credit.scope='al_negative': did you mean all_negative? Input",
        ),
        ("model.warm_start=tinny", "model.warm_start=tinny: did you mean tiny? (conf/warm_start has "),
        ("seed=1,2", "seed=1,2: one value is wanted; the flow sgpo-sweep tries several"),
        ("eval=nine,chains", "eval=nine,chains: one value is wanted; a list is written eval=[nine,chains]"),
        ("data.source=a=b", 'data.source=a=b: a text like this needs quotes: data.source="a=b", in a shell \'data'),
        ("train.betas=0.9=1", 'train.betas=0.9=1: a text like this needs quotes: train.betas=["0.9=1"], in a shell'),
        ("seed='a", "seed='a: its quotes or brackets can't be read"),
    ],
)
def test_what_was_meant_is_said(override: str, meant: str) -> None:
    assert refused(override).startswith(meant)


def test_a_typo_in_the_last_part_of_any_key_is_answered_with_that_key() -> None:
    """Two letters swapped, or one left out: of keys whose end is long enough to be known by it."""
    missed = []
    long = [key for key in KEYS if len(key.rpartition(".")[2]) > 5 and NAMED not in key]
    assert len(long) > 60
    for key in long:
        rest, dot, end = key.rpartition(".")
        for typo in (end[:2] + end[3] + end[2] + end[4:], end[:3] + end[4:]):
            if rest + dot + typo not in KEYS and typo != end and key not in refused(f"{rest}{dot}{typo}=1"):
                missed.append(typo)
    assert missed == []


def test_the_same_word_is_never_suggested_and_nothing_that_would_be_refused() -> None:
    assert did_you_mean("seed", ["seed"]) == "" and did_you_mean("seed", ["speed"]) == "did you mean speed?"
    assert "did you mean" not in refused("algoritm=5")  # there is no conf/algorithm/5.yaml
    assert did_you_mean("GRPO", ["grpo", "sgpo"]) == "did you mean grpo?"
    assert did_you_mean("b", ["a1", "a2"]) == ""


def test_all_that_is_wrong_is_said_at_once() -> None:
    assert refused("sede=1", "bata=3", "bata=4").count("no setting") == 2


def test_a_plus_is_nobodys_concern() -> None:
    plain = load_run("tiny", ["seed=1", "algorithm=grpo", "algorithm.credit={beta: 4}"])
    assert load_run("tiny", ["+seed=1", "+algorithm=grpo", "++algorithm.credit.beta=4"]) == plain
    assert load_run("tiny", ["+eval.sets.mine={k: 3}"]).eval.sets["mine"].k == 3
    assert "eval.sets.mine" in refused("eval.sets.mine={k: 3}")


def test_overrides_are_told_apart() -> None:
    read = read_overrides(["++seed=1", "~tags", "data.source=a=b"], RunConfig)
    assert [tuple(o) for o in read] == [("+", "seed", "1"), ("~", "tags", ""), ("", "data.source", "a=b")]


@pytest.mark.parametrize(
    ("overrides", "meant"),
    [
        (["grid.algorithm=[grpo,sgop]"], "grid: algorithm=sgop: did you mean sgpo?"),
        (
            ["grid={algorithm.credit.bta: [1]}"],
            "grid: no setting 'algorithm.credit.bta': did you mean algorithm.credit.b",
        ),
        (['overrides=["iteration=3"]'], "overrides: no setting 'iteration': did you mean iterations?"),
        (
            ["overrides=iterations=3"],
            'overrides=iterations=3: a text like this needs quotes: overrides=["iterations=3"]',
        ),
        (["run_preset=tinny"], "run_preset=tinny: did you mean tiny? (conf/online has "),
        (["benchmark=chain"], "benchmark=chain: did you mean chains?"),
        (["baseline=grpoo"], "baseline=grpoo: did you mean grpo?"),
        (["paralel=2"], "no setting 'paralel': did you mean parallel?"),
    ],
)
def test_sweeps_too(overrides: list[str], meant: str) -> None:
    with pytest.raises(ConfigError) as error:
        sweep_runs(load_sweep("grpo-vs-sgpo-tiny", overrides))
    assert str(error.value).startswith(meant)


def test_a_key_of_a_grid_is_written_as_it_is() -> None:
    """algorithm.credit.beta is one key of the grid, though it has dots, and braces need no plus."""
    for override in ("grid.algorithm.credit.beta=[1,2]", "grid={algorithm.credit.beta: [1,2]}"):
        config = load_sweep("grpo-vs-sgpo-tiny", [override, "baseline="])
        assert config.grid == {"algorithm": ["grpo", "sgpo"], "algorithm.credit.beta": [1, 2]}


def test_the_base_of_a_warm_start() -> None:
    with pytest.raises(ConfigError, match=r"^base=tny: did you mean tiny\?"):
        load_warm_start("tiny_mild", ["base=tny"])
