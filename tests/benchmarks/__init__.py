"""Measurements: every claim of speed beside the plain way of doing the same, in the same run."""
