"""Cameras, bounds, analytic primitives and meshes: plain geometry that knows no network."""
