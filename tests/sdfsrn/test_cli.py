"""What the command line says of an answer."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sdfsrn.cli import app
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


@pytest.mark.parametrize(
    ("file", "arguments", "said"),
    [
        ("set.zip", ["--field", "archive=1"], "--field archive: this is no field of the form"),
        ("photo.png", ["--field", "self=1"], "--field self: this is no field of the form"),
        ("photo.png", ["--skip-bad"], "--skip-bad is for data sets alone"),
        (None, ["--training", '{"self": 1}'], "--training self: this is no field of a training"),
        (None, ["--training", '{"idempotency_key": 1}'], "--training idempotency_key: this is no field"),
        (None, ["--training", "{}", "--skip-bad"], "--skip-bad is for data sets alone"),
    ],
)
def test_what_cannot_be_submitted_is_refused_with_a_sentence(
    tmp_path: Path, file: str | None, arguments: list[str], said: str
) -> None:
    if file:
        (tmp_path / file).touch()
    given = [str(tmp_path / file)] if file else []
    done = CliRunner().invoke(app, ["submit", *given, *arguments, "--url", "http://127.0.0.1:9"])
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit) and said in done.stderr
