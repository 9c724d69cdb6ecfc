"""What the command line says of an answer."""

from pathlib import Path
from typing import Any

import pytest

from sdfsrn.cli.shared import refused, tell

METRICS: dict[str, Any] = {"input_iou": 0.97, "input_view": {"azimuth_deg": 30.0, "elevation_deg": 20.0, "estimated": True}}


def test_where_the_answer_lies_and_how_good_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    tell(METRICS, Path("out"))
    said = capsys.readouterr().out
    assert "out/" in said and "azimuth 30, elevation 20 degrees (estimated)" in said and "0.970" in said
    assert "familiarity" not in said, "a service of before does not tell it"


def test_that_the_model_does_not_know_an_object_is_said_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    warnings = [{"code": "cut_off", "message": "the object touches the picture's border [on the left]"}]
    tell(METRICS | {"familiarity": 0.02, "verdict": "unfamiliar", "warnings": warnings}, Path("out"))
    said = capsys.readouterr().out
    assert "0.02, the model does not know such objects" in said
    assert "warning:     the object touches the picture's border [on the left]" in said


def test_a_refusal_is_said_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    message = "epochs must lie in [1, 100000], got [red]" + " and so on" * 20
    assert refused(ValueError(message)).exit_code == 1
    assert capsys.readouterr().err == message + "\n"
