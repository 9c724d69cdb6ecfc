"""The service against its own description: schemathesis asks everything that it allows, and much that it forbids."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import start_stack, stop_stack

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_no_answer_is_undocumented(tmp_path: Path) -> None:
    """Every check but that of accepting what only looks valid: a picture of random bytes fits the description and is none."""
    stack = start_stack(tmp_path / "data")
    try:
        done = subprocess.run(
            [
                *(str(Path(sys.executable).with_name("schemathesis")), "run", f"{stack.client.base_url}/openapi.json"),
                *("--checks", "all", "--exclude-checks", "positive_data_acceptance"),
                *("--max-examples", os.environ.get("SDFSRN_EXAMPLES", "10"), "--continue-on-failure", "--no-color"),
                *("--request-timeout", "5", "--seed", "1"),  # a stream of events lasts as long as its job
            ],
            cwd=tmp_path,
            text=True,
            capture_output=True,
        )
    finally:
        stop_stack(stack)
    print(done.stdout[-3000:])
    assert done.returncode == 0, done.stdout[-10_000:]
    assert "Stateful" in done.stdout and "Tested: " in done.stdout
