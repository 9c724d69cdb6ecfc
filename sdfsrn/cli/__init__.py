"""The command line: what asks a service (`remote`) and what works here (`local`, `fit`)."""

from sdfsrn.cli import fit, local, remote
from sdfsrn.cli.shared import app

__all__ = ["app", "fit", "local", "remote"]
