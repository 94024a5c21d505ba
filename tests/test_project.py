"""The project itself: its entry points, who imports whom, what must not lie in the repository."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from steps.parameters import Parameters
from tests.conftest import PROJECT

PACKAGES = ("steps", "jobmatch_pyfunc", "serving", "gateway", "stack", "benchmarks")
ENTRY_POINTS = yaml.safe_load((PROJECT / "MLproject").read_text(encoding="utf-8"))["entry_points"]
STEPS = {
    name: re.match(r"python -m steps\.(\w+)", entry["command"])
    for name, entry in ENTRY_POINTS.items()
}
STEPS = {name: match.group(1) for name, match in STEPS.items() if match}


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = [PROJECT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.exists()]


def modules(package: str) -> list[Path]:
    return sorted((PROJECT / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """The top-level names that a module imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


def parameters_of(step: str) -> type[Parameters]:
    """The parameter model that the step's module defines or takes over."""
    module = importlib.import_module(f"steps.{step}")
    return getattr(module, f"{step.title()}Parameters")


@pytest.mark.parametrize("step", ["ingest", "featurize", "train", "evaluate", "score", "promote"])
def test_every_step_is_an_entry_point(step: str) -> None:
    assert STEPS[step] == step


@pytest.mark.parametrize("name", STEPS)
def test_entry_point_declares_exactly_what_its_step_takes(name: str) -> None:
    declared = ENTRY_POINTS[name].get("parameters", {})
    assert set(declared) == set(parameters_of(STEPS[name]).model_fields)


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_entry_point_passes_every_parameter_on(name: str) -> None:
    entry = ENTRY_POINTS[name]
    declared = entry.get("parameters", {})
    passed = re.findall(r"--(\w+) \{(\w+)\}", entry["command"])
    if name in STEPS:
        assert all(option == parameter for option, parameter in passed)
    assert {parameter for _, parameter in passed} == set(declared)
    assert all({"type"} <= set(spec) <= {"type", "default"} for spec in declared.values())


def test_a_parameter_has_the_same_default_wherever_it_is_declared() -> None:
    defaults: dict[str, set[str]] = {}
    for name in STEPS:
        for parameter, spec in ENTRY_POINTS[name].get("parameters", {}).items():
            if name in ("ingest", "featurize", "train", "evaluate"):
                defaults.setdefault(parameter, set()).add(f"{spec['type']} {spec.get('default')}")
    assert {k: v for k, v in defaults.items() if len(v) > 1} == {}


def test_only_steps_and_benchmarks_import_steps() -> None:
    guilty = [path for package in ("jobmatch_pyfunc", "serving", "gateway", "stack")
              for path in modules(package) if "steps" in imported(path)]  # fmt: skip
    assert guilty == []


def test_gateway_imports_no_model_code_mlflow_or_sklearn() -> None:
    barred = {"steps", "jobmatch_pyfunc", "serving", "mlflow", "sklearn"}
    assert {p.name: hit for p in modules("gateway") if (hit := imported(p) & barred)} == {}


def test_the_model_ships_alone() -> None:
    """What is packed into the model imports only what the model's requirements name."""
    from steps.train import SHIPPED_REQUIREMENTS

    shipped = {{"pystemmer": "Stemmer"}.get(name, name) for name in SHIPPED_REQUIREMENTS} | {
        "jobmatch_pyfunc", "yaml"}  # mlflow itself needs yaml  # fmt: skip
    for path in modules("jobmatch_pyfunc"):
        third = {n for n in imported(path) if n not in sys.stdlib_module_names}
        assert third <= shipped, path.name


def test_no_drawer_modules() -> None:
    drawers = {"utils", "util", "helpers", "helper", "common", "base", "manager", "misc"}
    every = [path for package in (*PACKAGES, "tests") for path in modules(package)]
    assert [path for path in every if drawers & {path.stem, path.parent.name}] == []


def test_conda_environment_is_the_one_list_of_requirements() -> None:
    conda = yaml.safe_load((PROJECT / "conda.yaml").read_text(encoding="utf-8"))
    assert conda["dependencies"] == ["python=3.11", "pip", {"pip": ["-r requirements.txt"]}]
    assert not (PROJECT / "uv.lock").exists()


def test_every_requirement_is_pinned() -> None:
    lines = (PROJECT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    listed = [line for line in lines if line.strip() and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9._-]+(\[[a-z,]+\])?==[\w.]+", line) for line in listed), listed


# Written in pieces, so that this file does not hold what it looks for.
REGISTRIES = [".".join(parts) for parts in (
    ("pypi", "org"), ("pythonhosted", "org"), ("registry", "npmjs", "org"), ("anaconda", "org"))]
MACHINE_PATHS = ["/".join(("", *parts, "")) for parts in (
    ("work", "main"), ("work", "shared"), ("root",), ("tmp", "w"), ("tmp", "brief"))]


@pytest.mark.parametrize("pattern", REGISTRIES + MACHINE_PATHS)
def test_no_registry_address_and_no_path_of_one_machine_is_tracked(pattern: str) -> None:
    holding = [str(path.relative_to(PROJECT)) for path in tracked()
               if pattern.encode() in path.read_bytes()]  # fmt: skip
    assert holding == []


def test_nothing_large_or_made_by_a_run_is_tracked() -> None:
    files = tracked()
    assert [p.name for p in files if p.stat().st_size > 2_500_000] == []
    assert sum(p.stat().st_size for p in files if p.parent.name == "sample") < 3_000_000
    made = {"mlruns", "mlartifacts", "mlflow.db", ".env"}
    assert [str(p) for p in files if made & set(p.relative_to(PROJECT).parts)] == []


@pytest.mark.xdist_group("together")
def test_xdist_keeps_the_tests_of_a_group_together(request: pytest.FixtureRequest) -> None:
    """pytest 9.2 with pytest-xdist 3.8 ignores groups in silence: each worker then starts the
    servers and trains the models of all groups, and the suite takes twice as long."""
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("not run with --dist loadgroup")
    assert request.node.nodeid.endswith("@together")
