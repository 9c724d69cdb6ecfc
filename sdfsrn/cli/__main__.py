"""`python -m sdfsrn.cli`."""

from sdfsrn.cli import app

app()
