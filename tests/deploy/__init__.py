"""The compose stack, built and run for real: `python -m tests.deploy`."""
