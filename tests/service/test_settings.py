"""Settings that cannot be: one sentence each, without the value, from every process that reads them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.settings import Settings, read_settings
from service.webhooks import warn_of
from tests.conftest import ROOT

SIGNS = "whsec_MDEyMzQ1Njc4OWFiY2RlZg=="
SECRET = "s3cr3t-s3cr3t-1"  # 15 characters


def start(module: str, data: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a process that is to end at once."""
    named = {f"SDFSRN_{name.upper()}": value for name, value in environment.items()}
    words = ["--queue", "training"] if module == "worker" else []
    return subprocess.run(
        [sys.executable, "-m", module, *words],
        cwd=ROOT,
        env={**os.environ, "SDFSRN_DATA": str(data), **named},
        text=True,
        capture_output=True,
        timeout=120,
    )


OTHERS = [pytest.param(f"service.{name}", marks=pytest.mark.slow) for name in ("broker", "serve", "keeper")]


@pytest.mark.parametrize("module", ["service", "worker", *OTHERS])
def test_a_short_key_is_named_and_not_shown(module: str, tmp_path: Path) -> None:
    done = start(module, tmp_path, keys=f"alice:{SECRET}", port="many")
    assert done.returncode == 2
    said = done.stderr.splitlines()
    assert len(said) == 2 and said[0].startswith("SDFSRN_PORT: ") and said[1].startswith("SDFSRN_KEYS: pair 1 "), done.stderr
    assert SECRET not in done.stderr + done.stdout


GOOD = "alice:0123456789abcdef"


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("keys", f"{GOOD},bob:0123456789abcdef", "pair 2 has the key of an earlier pair"),
        ("keys", f"{GOOD},alice:fedcba9876543210", "pair 2 has the name of an earlier pair"),
        ("keys", f"{GOOD},fedcba9876543210", "pair 2 is no name:key"),
        ("keys", "a b:0123456789abcdef", "pair 1 is no name:key"),
        ("keys", "everybody:0123456789abcdef", "choose another"),
        ("keys", "alice:0123456789 abcdef", "pair 1 has a key"),
        ("redis_url", "localhost:6379", "redis://"),
        ("redis_url", "redis://:0123456789/s@localhost:6379/0", "%2F"),
        ("redis_url", "redis://:pa/0123456789@localhost:6379/0", "%2F"),
        ("redis_url", "redis://:pa#0123456789@localhost:6379/0", "%23"),
        ("artifacts_url", "s4://bucket", "s3://bucket/prefix"),
        ("log", "xml", "'text' or 'json'"),
        ("max_jobs", "0", "greater than or equal to 1"),
    ],
)
def test_every_sentence_says_what_was_expected(
    variable: str, value: str, reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(f"SDFSRN_{variable.upper()}", value)
    with pytest.raises(SystemExit) as ended:
        read_settings()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and reason in said
    assert said.startswith(f"SDFSRN_{variable.upper()}: ") and len(said.splitlines()) == 1
    assert "0123456789" not in said


@pytest.mark.parametrize(
    ("secrets", "said"),
    [({}, "SDFSRN_WEBHOOK_SECRETS"), ({"alice": "x"}, ""), ({"alice": "x", "carol": "y"}, "carol")],
)
def test_webhooks_that_nobody_would_get_are_warned_of(
    secrets: dict[str, str], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    warn_of(Settings(keys={"alice": "0123456789abcdef"}, webhook_secret=SIGNS, webhook_secrets=secrets))
    assert len(caplog.records) == bool(said) and said in caplog.text and SIGNS not in caplog.text


def test_a_data_folder_that_cannot_be_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = start("service", tmp_path / "file" / "data")
    assert done.returncode == 1 and "SDFSRN_DATA" in done.stderr and "Traceback" not in done.stderr
