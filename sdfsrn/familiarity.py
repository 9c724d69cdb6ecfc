"""Whether a model knows such objects: how far a picture's code, mask and answer lie from those of the training's kind.

Three distances are looked at: the code's Mahalanobis distance from the training's codes (Lee et al. 2018), what a few
principal components of the training's masks leave of the mask, and what the answer's silhouette leaves unexplained of it.
Pictures of the training's own kind say how large these usually are.
"""

import dataclasses
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

COMPONENTS = 32  # of masks
MASK_SIZE = 32  # pixels per side of the masks that are compared
SHRUNK = 0.01  # share of the codes' mean variance that is added to each: fewer pictures than dimensions may be known
UNFAMILIAR = 0.03  # share of the training's own kind that is called unfamiliar
LEAST_SPREAD = 0.05  # of the logarithms of the distances: pictures that are all alike say little
RESOLVED = 1e-3  # what is less unexplained than this is rounding


@dataclass(frozen=True)
class Familiarity:
    """What a checkpoint keeps of its training's codes and masks.

    `centre` and `spread` are those of the three distances, and `scores`, rising, those of pictures of the training's kind.
    """

    code_mean: Float[Tensor, " dim"]
    code_precision: Float[Tensor, "dim dim"]
    mask_mean: Float[Tensor, " pixels"]
    mask_basis: Float[Tensor, "components pixels"]
    centre: Float[Tensor, "3"]
    spread: Float[Tensor, "3"]
    scores: Float[Tensor, " n"]

    @classmethod
    def fit(
        cls,
        codes: Float[Tensor, "n dim"],
        masks: Float[Tensor, "m size size"],
        kind: list[tuple[Float[Tensor, "1 dim"], Float[Tensor, "size size"], float]],
    ) -> "Familiarity":
        """From the training's codes and masks, and code, mask and `input_iou` of pictures of its `kind`.

        The pictures of its kind should be others than the training's, where others can be had.
        """
        centred = codes - codes.mean(dim=0)
        covariance = centred.T @ centred / max(1, len(codes) - 1)
        variance = float(covariance.diagonal().mean()) or 1.0
        precision = torch.linalg.inv(covariance + SHRUNK * variance * torch.eye(codes.shape[1], device=codes.device))
        small = _small(masks)
        mask_mean = small.mean(dim=0)
        _, _, basis = torch.linalg.svd(small - mask_mean, full_matrices=False)
        unscaled = codes.new_zeros(3), codes.new_ones(3), codes.new_zeros(1)
        known = cls(codes.mean(dim=0), precision, mask_mean, basis[:COMPONENTS].contiguous(), *unscaled)
        distances = torch.stack([known.distances(*one) for one in kind])
        spread = distances.std(dim=0, correction=0).clamp(min=LEAST_SPREAD)
        known = dataclasses.replace(known, centre=distances.mean(dim=0), spread=spread)
        return dataclasses.replace(known, scores=known.score(distances).sort().values)

    @classmethod
    def read(cls, tensors: dict[str, Tensor], device: torch.device) -> "Familiarity | None":
        """As a checkpoint keeps it; None if that does not know."""
        return cls(**{name: value.float().to(device) for name, value in tensors.items()}) if tensors else None

    @property
    def code_metric(self) -> Float[Tensor, "dim dim"]:
        """How far a change of the code is: long where the training's codes hardly vary, the identity if they vary alike."""
        variance: Tensor = torch.linalg.inv(self.code_precision).diagonal().mean()
        return self.code_precision * variance

    def of(self, code: Float[Tensor, "1 dim"], mask: Float[Tensor, "size size"], input_iou: float) -> float:
        """The share of pictures of the training's kind that the model knows no better, in [0, 1]."""
        score = self.score(self.distances(code, mask, input_iou))
        return float((self.scores >= score).float().mean())

    def distances(self, code: Float[Tensor, "1 dim"], mask: Float[Tensor, "size size"], input_iou: float) -> Float[Tensor, "3"]:
        """Logarithms of the three distances."""
        away = code[0] - self.code_mean
        small = _small(mask[None])[0] - self.mask_mean
        left = small - (small @ self.mask_basis.T) @ self.mask_basis
        of_code = (away @ self.code_precision @ away / len(away)).clamp(min=RESOLVED)
        of_mask = left.square().mean().clamp(min=RESOLVED**2).sqrt()
        return torch.stack([of_code.log() / 2, of_mask.log(), code.new_tensor(math.log(1 - input_iou + RESOLVED))])

    def score(self, distances: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch"]:
        """One number: only what is larger than usual counts."""
        larger: Tensor = ((distances - self.centre) / self.spread).relu()
        return larger.square().sum(dim=-1)


def _small(masks: Float[Tensor, "n size size"]) -> Float[Tensor, "n pixels"]:
    return torch.nn.functional.interpolate(masks[:, None], (MASK_SIZE, MASK_SIZE), mode="area").flatten(1)
