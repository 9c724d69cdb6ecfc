"""From rays and any signed distance field to silhouettes, depth and normals. Nothing here has parameters."""

from collections.abc import Callable

from torch import Tensor

# points "batch n 3", world space -> sdf "batch n", negative inside. Any differentiable function will do.
Sdf = Callable[[Tensor], Tensor]
