"""The command line: what asks a service (`remote`) and what works here (`local`)."""

from sdfsrn.cli import local, remote
from sdfsrn.cli.shared import app

__all__ = ["app", "local", "remote"]
