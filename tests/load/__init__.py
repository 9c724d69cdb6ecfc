"""Load on a running service, with named figures: `python -m tests.load`."""
