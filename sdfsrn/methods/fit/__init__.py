"""Fits of one object to the silhouettes of its views."""
