"""What a training may be asked for."""

import re

import pytest

from gateway.schemas import TrainingParameters


def test_values_of_c_are_above_zero() -> None:
    schema = TrainingParameters.model_json_schema()["properties"]["grid_search_c_values"]
    pattern = next(kind["pattern"] for kind in schema["anyOf"] if "pattern" in kind)
    for good in ("0.1,1,10", "1", "0.0001", "00.5", "10.0", "100000", "0.100", "1.000000001"):
        assert re.fullmatch(pattern, good), good
        TrainingParameters(grid_search_c_values=good)
    for bad in ("0", "0.0", "1,0", "0.000,1", "", ",", "1,", "-1", "1e3", ".5", "1,,2"):
        assert not re.fullmatch(pattern, bad), bad
        with pytest.raises(ValueError, match="pattern"):
            TrainingParameters(grid_search_c_values=bad)
