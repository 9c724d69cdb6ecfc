"""The guides say what is so: their commands are run, and their table of settings is whole."""

import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from service.settings import Settings
from tests.conftest import ROOT, Stack

HTTP, OPERATING = ((ROOT / "docs" / f"{name}.md").read_text() for name in ("http", "operating"))
CURLS = re.findall(r"^    (curl .*)$", HTTP, re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path, photo: bytes) -> Path:
    (tmp_path / "picture.png").write_bytes(photo)
    return tmp_path


def test_every_curl_of_the_http_guide_succeeds(stack: Stack, folder: Path) -> None:
    assert len(CURLS) >= 4
    job = stack.client.post("/v1/reconstructions", files={"image": (folder / "picture.png").read_bytes()}).json()["id"]
    for line in CURLS:
        here = line.replace("http://127.0.0.1:8000", str(stack.client.base_url).rstrip("/")).replace("JOB", job)
        command = [*shlex.split(here), "-sS", "--fail-with-body"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=90)
        assert done.returncode == 0 and done.stdout, f"{line}\n{done.stdout}{done.stderr}"


def test_the_python_of_the_http_guide_runs(stack: Stack, folder: Path) -> None:
    found = re.search(r"^    from pathlib import Path$.*?(?=^\S)", HTTP, re.MULTILINE | re.DOTALL)
    assert found
    program = textwrap.dedent(found[0]).replace("http://127.0.0.1:8000", str(stack.client.base_url))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment, check=True, timeout=90)
    assert (folder / "out" / "mesh.glb").is_file()


def test_every_setting_is_in_the_table() -> None:
    missing = [name for name in Settings.model_fields if f"`SDFSRN_{name.upper()}`" not in OPERATING]
    assert missing == []
