"""Command-line parameters of the steps.

MLproject is the only place where a parameter gets its default; the models here check types and
ranges. `python -m steps.train --data_dir x` therefore behaves as `mlflow run . -e train -P ...`.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from steps.failure import StepError

PROJECT = Path(__file__).resolve().parent.parent


def _numbers(value: Any) -> Any:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _ngram_range(value: Any) -> Any:
    parts = _numbers(value)
    if [str(part) for part in parts] not in (["1", "1"], ["1", "2"], ["2", "2"]):
        raise ValueError("must be 1,1 or 1,2 or 2,2")
    return parts


FloatList = Annotated[tuple[float, ...], BeforeValidator(_numbers)]
"""Numbers separated by commas, such as `0.1,1,10`."""
NgramRange = Annotated[tuple[int, int], BeforeValidator(_ngram_range)]
"""The fewest and the most words of a term, separated by a comma, such as `1,2`."""


class Parameters(BaseModel):
    """Base of every step's parameters: frozen, unknown names refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def as_strings(self) -> dict[str, str]:
        """The parameters as MLflow logs them, written as a user writes them."""
        return {name: as_written(value) for name, value in self}


P = TypeVar("P", bound=Parameters)


def as_written(value: Any) -> str:
    """A parameter's value in the form in which it is given on the command line."""
    if value is None:
        return ""
    if isinstance(value, tuple | list):
        return ",".join(as_written(part) for part in value)
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def declared_defaults(entry_point: str) -> dict[str, str]:
    """Names and defaults of an entry point's parameters, as MLproject declares them."""
    project = yaml.safe_load((PROJECT / "MLproject").read_text(encoding="utf-8"))
    declared = project["entry_points"][entry_point].get("parameters", {})
    return {name: str(spec["default"]) for name, spec in declared.items() if "default" in spec}


def parse(model: type[P], entry_point: str, arguments: Sequence[str]) -> P:
    """Parameters of `entry_point` from `--name value` arguments over MLproject's defaults.

    Raises StepError naming every parameter that is unknown, missing or out of range.
    """
    given: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        name = rest.pop(0)
        if not name.startswith("--") or not rest:
            raise StepError(
                f"{entry_point}: cannot read the argument {name!r}; "
                "parameters are given as `--name value` (with mlflow run: `-P name=value`)"
            )
        given[name.removeprefix("--")] = rest.pop(0)
    try:
        return model.model_validate({**declared_defaults(entry_point), **given})
    except ValidationError as error:
        raise StepError(f"{entry_point}: " + "; ".join(_problems(error, model))) from None


def command(entry_point: str, **given: str) -> str:
    """How the user calls an entry point with these parameters: without conda `mlflow run` has to be
    told to take uv."""
    options = "" if shutil.which("conda") else " --env-manager uv"
    return f"mlflow run . -e {entry_point}{options}" + "".join(
        f" -P {name}={value}" for name, value in given.items())


def select(model: type[P], parameters: Parameters) -> P:
    """The subset of `parameters` that the step of `model` declares."""
    return model.model_validate({name: getattr(parameters, name) for name in model.model_fields})


def _problems(error: ValidationError, model: type[Parameters]) -> list[str]:
    lines = []
    for problem in error.errors():
        name = str(problem["loc"][0]) if problem["loc"] else "parameters"
        if problem["type"] == "extra_forbidden":
            known = ", ".join(sorted(model.model_fields))
            lines.append(f"unknown parameter {name!r} (known: {known})")
        elif problem["type"] == "missing":
            lines.append(f"parameter {name!r} is required: pass -P {name}=...")
        else:
            reason = problem["msg"].removeprefix("Value error, ")
            lines.append(f"parameter {name!r}: {reason[0].lower() + reason[1:]}, "
                         f"got {problem['input']!r}")
    return lines
