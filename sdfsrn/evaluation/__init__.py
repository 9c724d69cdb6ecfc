"""How good a model is, against truth that it never saw, and pictures of it."""
