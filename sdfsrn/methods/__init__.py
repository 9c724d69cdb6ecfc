"""Ways to learn shape. None imports another."""
