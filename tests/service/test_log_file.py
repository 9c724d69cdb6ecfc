"""The log of a service on one machine: all of it in one file, its warnings and errors on the console."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from service.log_file import LogFile
from tests.conftest import ROOT, start_stack, stop_stack

RECORDS = b"""2026-11-27 05:14:04,628 training worker INFO woken for job 1
12:M 27 Nov 2026 05:14:02.007 # WARNING Memory overcommit must be enabled!
2026-11-27 05:14:05,000 keeper WARNING job 1 lost its worker: requeued
12:M 27 Nov 2026 05:14:06.007 # Valkey is now ready to exit, bye bye...
2026-11-27 05:14:06,000 api ERROR GET /v1/jobs
Traceback (most recent call last):
ValueError: seven
[2026-11-27 05:14:05,791: INFO/SpawnPoolWorker-1] child process 7112 calling self.run()
{"time": "2026-11-27T05:14:07.000+00:00", "level": "info", "process": "api", "logger": "uvicorn", "message": "WARNING"}
{"time": "2026-11-27T05:14:07.000+00:00", "level": "error", "process": "api", "logger": "service", "message": "eight"}
"""


def test_the_console_shows_warnings_and_errors_with_their_tracebacks(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = LogFile(tmp_path)
    log.follow()
    log.ready()
    command = f"import os; os.write(1, {RECORDS[:300]!r}); os.write(1, {RECORDS[300:]!r})"
    subprocess.run([sys.executable, "-c", command], stdout=log.stream, check=True)
    log.close()
    assert log.path.read_bytes() == RECORDS
    shown = capfd.readouterr().err.splitlines()
    assert [line.split()[-1] for line in shown] == ["requeued", "/v1/jobs", "last):", "seven", '"eight"}']


def test_the_log_of_the_start_before_is_kept_once(tmp_path: Path) -> None:
    for start in (b"first\n", b"second\n", b"third\n"):
        log = LogFile(tmp_path)
        log.stream.write(start)
        log.close()
    assert {file.name: file.read_text() for file in log.path.parent.iterdir()} == {
        "service.log": "third\n",
        "service.log.1": "second\n",
    }


def test_a_large_log_is_cut_while_others_write_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("service.log_file.MAX_BYTES", 10_000)
    log = LogFile(tmp_path)
    log.follow()
    log.ready()
    record = "2026-11-27 05:14:05,000 keeper WARNING %099d\\n"
    command = f"import os, time\nfor i in range(600): os.write(1, b'{record}' % i)\n"
    command += "while os.fstat(1).st_size > 10_000: time.sleep(0.05)\nos.write(1, b'end\\n')"
    subprocess.run([sys.executable, "-c", command], stdout=log.stream, check=True)
    log.close()
    assert log.path.stat().st_size < 10_000 < (tmp_path / "logs" / "service.log.1").stat().st_size
    assert log.path.read_text().endswith("end\n") and "\0" not in log.path.read_text()
    shown = capfd.readouterr().err.splitlines()
    assert [int(line.split()[-1]) for line in shown[:-1]] == list(range(600)) and shown[-1] == "end"


def test_a_data_folder_that_others_can_write_to_is_refused_with_a_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "broker"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    environment = {"SDFSRN_DATA": str(tmp_path / "data"), "PATH": ""}
    command = [sys.executable, "-m", "service", "--port", "0"]
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert found.returncode == 1 and "can be written by others" in found.stderr and "Traceback" not in found.stderr


@pytest.mark.slow
def test_the_console_of_a_service_is_quiet_until_a_process_dies(tmp_path: Path) -> None:
    stack = start_stack(tmp_path / "data")
    console = tmp_path / "data.log"
    try:
        assert console.read_text() == "", "an ordinary start has nothing to warn of"
        assert "Application startup complete" in stack.log() and "training@" in stack.log()
        stack.worker("dataset").kill()
        deadline = time.monotonic() + 30
        while "dataset worker ended with code -9" not in console.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        stop_stack(stack)


@pytest.mark.slow
def test_a_demonstration_prints_a_dozen_lines(tmp_path: Path) -> None:
    """What `make demo` runs, from its first line to its last."""
    command = [sys.executable, "-m", "service", "--port", "0", "--run", sys.executable, "-m", "sdfsrn.cli", "demo", "--out", "out"]
    environment = {**os.environ, "SDFSRN_DATA": str(tmp_path / "data"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert 8 <= len(lines) <= 15, done.stdout
    assert any(line.endswith("logs/service.log") for line in lines)
    assert (tmp_path / "out" / "contact_sheet.png").is_file() and (tmp_path / "out" / "turntable.gif").is_file()
