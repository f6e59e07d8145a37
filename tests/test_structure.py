"""Import rules between the packages, and what no source file may do. Read from the source; nothing is imported."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("sgpo_core", "tasks", "flows")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
ENGINES = {"prefect", "ray", "vllm", "deepspeed", "mlflow"}
PICKLES = {"pickle", "cloudpickle", "dill", "shelve", "marshal", "joblib"}

Trees = dict[str, ast.Module]


@pytest.fixture(scope="module")
def trees() -> Trees:
    """Path below the root -> syntax tree, of every source file."""
    return {p.relative_to(ROOT).as_posix(): ast.parse(p.read_text(encoding="utf-8"), p) for p in FILES}


def imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names of what is imported, wherever in the file; `from a import b` gives `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def tops(tree: ast.AST) -> set[str]:
    return {name.partition(".")[0] for name in imported(tree)}


def dotted(node: ast.expr) -> str:
    """`a.b.c` as text, "" for other expressions."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def test_the_packages_are_there(trees: Trees) -> None:
    assert {name.partition("/")[0] for name in trees} == set(PACKAGES)


def test_the_core_knows_no_engine(trees: Trees) -> None:
    core = {name: tops(tree) for name, tree in trees.items() if name.startswith("sgpo_core/")}
    assert {name: bad for name, found in core.items() if (bad := found & (ENGINES | {"tasks", "flows"}))} == {}


def test_workers_know_neither_prefect_nor_mlflow(trees: Trees) -> None:
    workers = {name: tops(tree) for name, tree in trees.items() if name.startswith("tasks/workers/")}
    assert len(workers) > 1
    assert {name: bad for name, found in workers.items() if (bad := found & {"prefect", "mlflow", "flows"})} == {}


def test_tasks_do_not_know_flows(trees: Trees) -> None:
    assert [name for name, tree in trees.items() if name.startswith("tasks/") and "flows" in tops(tree)] == []


def test_flows_are_wiring(trees: Trees) -> None:
    allowed = set(sys.stdlib_module_names) | {"tasks", "flows", "prefect"}
    for name, tree in trees.items():
        if name.startswith("flows/"):
            others = {x for x in imported(tree) if x.partition(".")[0] not in allowed}
            assert [x for x in others if not x.startswith("sgpo_core.config.")] == [], name


def test_mlflow_is_imported_in_one_place(trees: Trees) -> None:
    importing = {name for name, tree in trees.items() if "mlflow" in tops(tree)}
    assert importing == {
        f"tasks/tracking/{name}.py"
        for name in ("database", "flavor", "problem_sets", "server", "system_metrics", "tracker")
    }


def test_the_hub_is_asked_where_its_errors_are_put_in_words(trees: Trees) -> None:
    loads = {"datasets.load_dataset", "datasets.load_dataset_builder"}
    asking = {name for name, tree in trees.items() if "huggingface_hub" in tops(tree) or loads & set(imported(tree))}
    only_formats = "tasks/reports/model_card.py"
    assert asking == {"sgpo_core/data/hub.py", "tasks/models/folders.py", only_formats}


def room(module: str) -> str:
    """The package or file that a module belongs to, as docs/layout.md names them: sgpo_core.rl, tasks.run."""
    return ".".join(module.split(".")[:2])


def imports_between_modules(trees: Trees) -> dict[str, set[str]]:
    """Module -> modules of ours that it imports, wherever in the file."""
    modules = {
        name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): tree for name, tree in trees.items()
    }
    return {
        name: {other for other in imported(tree) for other in (other, other.rpartition(".")[0]) if other in modules}
        for name, tree in modules.items()
    }


# Package -> those of the same level that it may import. What is not named imports none.
ROOMS = {
    "sgpo_core.storage": {"config", "types"},
    "sgpo_core.types": {"config"},
    "sgpo_core.grading": {"config", "types"},
    "sgpo_core.chains": {"config", "types"},
    "sgpo_core.data": {"chains", "config", "grading", "types"},
    "sgpo_core.rl": {"config", "data", "types"},
    "sgpo_core.sizing": {"config", "rl"},
    "sgpo_core.analysis": {"data", "rl", "storage", "types"},
    "sgpo_core.judges": {"chains", "config", "data", "rl", "storage", "types"},
    "sgpo_core.offline": {"config", "data", "rl", "storage", "types"},
    "sgpo_core.evaluation": {"analysis", "config", "grading", "types"},
    "tasks.services": {"paths"},
    "tasks.flow_page": {"reports", "services", "tracking"},
    "tasks.reports": {"paths"},
    "tasks.models": {"data", "paths"},
    "tasks.tracking": {"failures", "models", "paths"},
    "tasks.data": {"paths"},
    "tasks.workers": {"imports"},
    "tasks.engines": {"data", "paths", "workers"},
    "tasks.judges": {"engines", "models", "paths", "tracking", "reports"},
    "tasks.sizing": {"gpus", "judges", "models", "paths", "reports"},
    "tasks.simulation": {"judges", "reports", "sizing"},
    "tasks.preflight": {"gpus", "judges", "models", "paths", "sizing", "tracking"},
    "tasks.run": {"data", "engines", "judges", "paths", "services", "tracking"},
    "tasks.rollout": {"data", "engines", "run", "stage", "workers"},
    "tasks.ahead": {"engines", "rollout", "run", "stage"},
    "tasks.judging": {"judges", "run", "stage"},
    "tasks.rewards": {"run", "stage"},
    "tasks.training": {"engines", "run", "sizing", "stage", "workers"},
    "tasks.evaluation": {"data", "engines", "run", "stage", "workers"},
    "tasks.checkpointing": {"data", "engines", "run", "services", "stage", "tracking", "workers"},
    "tasks.publishing": {"models", "paths", "reports"},
    "tasks.progress": {"checkpointing", "data", "flow_page", "reports", "run", "services", "stage"},
    "tasks.supervised": {"checkpointing", "data", "engines", "flow_page", "paths", "stage", "tracking", "workers"},
    "tasks.benchmarks": {
        *("data", "engines", "failures", "flow_page", "models", "paths", "run", "services", "tracking", "workers"),
    },
    "tasks.sweeps": {"engines", "failures", "flow_page", "paths", "preflight", "reports", "run", "tracking"},
    "tasks.offline": {
        *("data", "engines", "judges", "judging", "paths", "preflight"),
        *("reports", "rollout", "run", "stage", "training", "workers"),
    },
}


def test_packages_import_only_those_below_them(trees: Trees) -> None:
    forbidden = {}
    for module, others in imports_between_modules(trees).items():
        level = module.split(".")[0]
        allowed = {f"{level}.{name}" for name in ROOMS.get(room(module), set())} | {room(module), level}
        if level != "flows" and (bad := {o for o in others if o.split(".")[0] == level and room(o) not in allowed}):
            forbidden[module] = bad
    assert forbidden == {}


def cycles(imports: dict[str, set[str]]) -> list[str]:
    """Modules that import themselves by way of others."""

    def reached(start: str) -> set[str]:
        found: set[str] = set()
        waiting = list(imports[start])
        while waiting:
            if (module := waiting.pop()) not in found:
                found.add(module)
                waiting += imports[module]
        return found

    return [module for module in imports if module in reached(module)]


def test_no_import_cycle_not_even_a_hidden_one(trees: Trees) -> None:
    """A package's own __init__ holds no code and imports nothing."""
    assert cycles(imports_between_modules(trees)) == []
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"], "the search itself"


def test_every_folder_says_what_lives_there_and_what_may_not(trees: Trees) -> None:
    folders = {name.rpartition("/")[0] for name in trees}
    for folder in folders:
        tree = trees[f"{folder}/__init__.py"]
        assert ast.get_docstring(tree) and len(tree.body) == 1, f"{folder}/__init__.py is a docstring and nothing else"


def test_functions_import_ours_only_at_the_top(trees: Trees) -> None:
    """A local import of our own modules would hide a cycle; slow libraries may be imported where they are used."""
    hidden = [
        (name, inner)
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        for inner in imported(node)
        if inner.split(".")[0] in PACKAGES
    ]
    assert hidden == []


def forbidden_in(tree: ast.AST) -> Iterator[str]:
    """What runs text as code, or a shell, or unpickles."""
    yield from (f"import {name}" for name in tops(tree) & PICKLES)
    yield from (x for x in imported(tree) if x in {"os.system", "os.popen", "torch.load"})
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        if name in {"eval", "exec", "__import__", "builtins.eval", "builtins.exec"}:
            yield name
        if name in {"os.system", "os.popen", "torch.load", "yaml.load", "yaml.unsafe_load"}:
            yield name
        shell = [k.value for k in node.keywords if k.arg == "shell"]
        if any(not (isinstance(value, ast.Constant) and value.value is False) for value in shell):
            yield f"{name}(shell=...)"


def test_nothing_runs_text_as_code(trees: Trees) -> None:
    assert {name: found for name, tree in trees.items() if (found := list(forbidden_in(tree)))} == {}


def unsafe_loads(tree: ast.AST) -> Iterator[str]:
    """Calls of `from_pretrained` by which a model's folder could bring code (classes that choose by what it says), or a
    pickle in place of weights (GGUF is neither)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (name := dotted(node.func)).endswith(".from_pretrained"):
            said = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
            if name.startswith("Auto") and said.get("trust_remote_code") is not False:
                yield f"{name} without trust_remote_code=False"
            gguf = any(k.arg == "gguf_file" for k in node.keywords)
            if "ForCausalLM" in name and not gguf and said.get("use_safetensors") is not True:
                yield f"{name} without use_safetensors=True"


def test_models_bring_no_code_and_no_pickles(trees: Trees) -> None:
    assert {name: found for name, tree in trees.items() if (found := list(unsafe_loads(tree)))} == {}
    assert sum(".from_pretrained" in ast.unparse(tree) for tree in trees.values()) >= 5, "the search itself"
    assert len(list(unsafe_loads(ast.parse("AutoModelForCausalLM.from_pretrained(x, trust_remote_code=True)")))) == 2


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("eval('1')", True),
        ("exec(x)", True),
        ("import os\nos.system('ls')", True),
        ("from os import system", True),
        ("def f():\n    import pickle", True),
        ("from pickle import loads", True),
        ("subprocess.run(x, shell=True)", True),
        ("subprocess.run(x, shell=flag)", True),
        ("torch.load(path)", True),
        ("model.eval()", False),
        ("re.compile(x)", False),
        ("subprocess.run(x, shell=False)", False),
        ("executor.exec(x)", False),
        ("yaml.safe_load(x)", False),
        ("'eval(1)'", False),
    ],
)
def test_the_search_itself(code: str, found: bool) -> None:
    assert bool(list(forbidden_in(ast.parse(code)))) is found


def test_the_layout_page_names_every_folder_and_file() -> None:
    """A folder of the page is a line `name/`, its files stand behind it, without their ending."""
    text = (ROOT / "docs/layout.md").read_text(encoding="utf-8").split("```")[1]
    listed: dict[str, set[str]] = {}
    folder = top = ""
    for line in text.splitlines():
        if opening := re.match(r"( *)([a-z_]+)/ ", line):
            top = top if opening[1] else opening[2]
            folder = f"{top}/{opening[2]}" if opening[1] else top
        if folder and folder.split("/")[0] in PACKAGES:
            listed.setdefault(folder, set()).update(re.findall(r"`([a-z_]+)`", line))
    there = {
        path.relative_to(ROOT).as_posix(): {file.stem for file in path.glob("*.py")} - {"__init__"}
        for package in PACKAGES
        for path in [ROOT / package, *sorted((ROOT / package).iterdir())]
        if path.is_dir() and list(path.glob("*.py"))
    }
    assert listed == there


def names_in(file: Path) -> set[str]:
    """Functions, classes and constants of a file."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assigned = [node.targets[0] for node in tree.body if isinstance(node, ast.Assign)]
    return defined | {target.id for target in assigned if isinstance(target, ast.Name)}


def test_the_threat_model_names_what_is_there() -> None:
    """Code (`file.py:name`) and tests (`file.py::name`); every line of its tables has a test."""
    text = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    named = re.findall(r"`([a-z_/]+\.py)(::?)(\w+)`", text)
    assert {where for where, sign, _ in named if sign == "::"} & {"tests/fuzz/test_responses.py"}, "the search itself"
    assert [f"{where}{sign}{name}" for where, sign, name in named if name not in names_in(ROOT / where)] == []
    rows = [line for line in text.splitlines() if line.startswith("| ") and line.count(" | ") == 2]
    without = [row for row in rows if "::test_" not in row and not row.endswith("| shown by |")]
    assert len(rows) > 30 and without == []
