"""The import walls stand."""

import subprocess
import sys
from pathlib import Path

import pytest

import sdfsrn

ROOT = Path(__file__).parents[2]


def test_import_contracts_hold() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_public_name_is_there_when_asked_for() -> None:
    for name in sdfsrn.__all__:
        assert callable(getattr(sdfsrn, name))
    with pytest.raises(AttributeError, match="nothing"):
        _ = sdfsrn.nothing


@pytest.mark.parametrize("module", ["sdfsrn", "sdfsrn.config", "sdfsrn.images", "sdfsrn.client", "service.app"])
def test_torch_stays_unloaded(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
