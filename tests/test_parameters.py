"""Parameters of the steps: MLproject's defaults, types and ranges, and how they are written."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.failure import StepError
from steps.featurize import FeaturizeParameters
from steps.fitting import TrainParameters
from steps.parameters import as_written, command, parse, select
from steps.promote import PromoteParameters


def refusal(*arguments: str) -> str:
    with pytest.raises(StepError) as caught:
        parse(TrainParameters, "train", arguments)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_defaults_are_those_of_mlproject() -> None:
    parameters = parse(TrainParameters, "train", [])
    assert parameters.grid_search_c_values == (0.1, 1, 10)
    assert parameters.tfidf_candidate_cv_ngram_range == (1, 2)
    assert (parameters.grid_search_cv, parameters.test_size) == (5, 0.2)


def test_arguments_win_over_defaults() -> None:
    assert parse(TrainParameters, "train", ["--grid_search_cv", "3"]).grid_search_cv == 3


@pytest.mark.parametrize(("name", "value", "says"), [
    ("test_size", "1", "less than 1"), ("test_size", "0", "greater than 0"),
    ("test_size", "nan", "finite"), ("test_size", "um quinto", "valid number"),
    ("max_df", "1.1", "less than or equal to 1"), ("min_df", "0", "greater than or equal to 1"),
    ("min_df", "1.5", "integer"), ("random_state", "-1", "greater than or equal to 0"),
    ("grid_search_cv", "1", "greater than or equal to 2"), ("grid_search_cv", "", "integer"),
    ("grid_search_c_values", "", "number"), ("grid_search_c_values", "1,,2", "number"),
    ("grid_search_c_values", "1,-1", "from 1e-06 to 1e+06"),
    ("grid_search_c_values", "inf", "finite"),
    ("grid_search_scoring", "auc", "one of scikit-learn's scorers roc_auc, "),
    ("logistic_regression_max_iter", "0", "greater than or equal to 1"),
    ("tfidf_candidate_cv_ngram_range", "1", "must be 1,1 or 1,2 or 2,2"),
    ("tfidf_candidate_cv_ngram_range", "1,3", "must be 1,1 or 1,2 or 2,2"),
    ("tfidf_candidate_cv_ngram_range", "2,1", "must be 1,1 or 1,2 or 2,2"),
    ("tfidf_candidate_cv_ngram_range", "a,b", "must be 1,1 or 1,2 or 2,2"),
    ("latent_dimensions", "0", "greater than or equal to 1"),
    ("negatives_per_pair", "0", "greater than or equal to 1"),
    ("undecided_weight", "0", "greater than 0"),
])  # fmt: skip
def test_value_out_of_range_is_refused_by_name(name: str, value: str, says: str) -> None:
    text = refusal(f"--{name}", value)
    assert f"parameter {name!r}" in text
    assert says in text


def test_unknown_parameter_is_refused_with_the_known_ones() -> None:
    text = refusal("--tfidf_max", "3")
    assert "unknown parameter 'tfidf_max'" in text
    assert "tfidf_candidate_cv_max_features" in text


def test_every_wrong_parameter_is_named_at_once() -> None:
    text = refusal("--test_size", "2", "--grid_search_cv", "1", "--colour", "red")
    assert all(name in text for name in ("test_size", "grid_search_cv", "colour"))


@pytest.mark.parametrize("arguments", [["data"], ["--test_size"], ["-x", "1"]])
def test_unreadable_argument_is_refused(arguments: list[str]) -> None:
    assert "cannot read the argument" in refusal(*arguments)


def test_required_parameter_is_asked_for() -> None:
    with pytest.raises(StepError, match="'version' is required: pass -P version="):
        parse(PromoteParameters, "promote", [])


@pytest.mark.parametrize("version", ["0", "-1", "1; rm", "staging", "latest", "1.0", "v1", ""])
def test_version_is_a_number_or_previous(version: str) -> None:
    with pytest.raises(StepError, match="parameter 'version'"):
        parse(PromoteParameters, "promote", ["--version", version])


def test_what_is_written_reads_as_the_same() -> None:
    given_ = ["--max_df", "0.9500001", "--grid_search_c_values", "0.00001,1,1e5"]
    parameters = parse(TrainParameters, "train", given_)
    written = parameters.as_strings()
    again = [part for name, value in written.items() for part in (f"--{name}", value)]
    assert parse(TrainParameters, "train", again) == parameters
    assert written["grid_search_cv"] == "5"
    assert written["grid_search_c_values"].startswith("1e-05,1,")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_no_digit_of_a_number_is_lost(value: float) -> None:
    assert float(as_written(value)) == value


def test_a_step_takes_its_own_from_a_larger_step() -> None:
    parameters = parse(TrainParameters, "train", ["--min_df", "3"])
    mine = select(FeaturizeParameters, parameters)
    assert mine == parse(FeaturizeParameters, "featurize", ["--min_df", "3"])


@pytest.mark.parametrize(("installed", "line"), [
    (True, "mlflow run . -e promote -P version=2 -P force=true"),
    (False, "mlflow run . -e promote --env-manager uv -P version=2 -P force=true"),
])  # fmt: skip
def test_commands_that_are_shown_name_uv_where_there_is_no_conda(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool, line: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    if installed:
        (tmp_path / "conda").touch(0o755)
    assert command("promote", version="2", force="true") == line
