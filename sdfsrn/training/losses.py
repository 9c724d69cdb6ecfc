"""The loss terms, one function each; all in scene units, so that their weights compare."""

import math

import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from sdfsrn.networks.model import Seen

SOFTNESS = 0.05  # of what counts as inside, scene units: the field moves where its surface is near
VIEW_SOFTNESS_DEG = 7.0
SURELY_INSIDE = 0.02  # the depth that is inside whatever noise a field has, scene units


def silhouette_entropy(
    min_sdf: Float[Tensor, "batch n"], inside: Bool[Tensor, "batch n"], temperature: float
) -> Float[Tensor, ""]:
    """Cross-entropy of the soft silhouette times the temperature: its gradient in min_sdf is at most 1 whatever the temperature.

    IDR's scaling (Yariv et al. 2020, eq. 7 with 1/alpha). An evaluation's `silhouette_loss` is another measure, a squared error.
    """
    entropy: Tensor = functional.binary_cross_entropy_with_logits(-min_sdf / temperature, inside.float())
    return temperature * entropy


def bound_loss(sdf: Float[Tensor, "batch n"], bound: Float[Tensor, "batch n"]) -> Float[Tensor, ""]:
    """How far the field stays below a known lower bound of it (SDF-SRN, Lin et al. 2020, eq. 8); a bound of 0 says nothing."""
    shortfall: Tensor = functional.relu(bound - sdf) * (bound > 0)
    return shortfall.mean()


def eikonal_loss(gradient: Float[Tensor, "batch n 3"]) -> Float[Tensor, ""]:
    """(|gradient| - 1)^2: a distance field's gradient has length 1 (Gropp et al. 2020)."""
    lengths: Tensor = torch.linalg.vector_norm(gradient, dim=-1)
    return (lengths - 1).square().mean()


def centre_loss(sdf: Float[Tensor, "batch n"], points: Float[Tensor, "batch n 3"]) -> Float[Tensor, ""]:
    """Squared distance from the origin of the centre of mass of what is inside; `points` are uniform in a ball.

    One view leaves open how far along its rays an object lies, with that how large it is, and where within the outline it is
    thick; that all objects are centred where their cameras look says it. The first half of the points makes one estimate of the
    centre, the second another: their product has no bias, where the square of one would have its variance, which is smaller for
    large and long objects and would teach such. An empty field's centre is the origin; only where less than one of the points
    of a half is inside does that draw the estimate towards it.
    """
    mass = torch.sigmoid(-sdf / SOFTNESS)[..., None].unflatten(1, (2, -1))
    centres = (mass * points.unflatten(1, (2, -1))).sum(dim=2) / mass.sum(dim=2).clamp(min=1)
    distance: Tensor = (centres[:, 0] * centres[:, 1]).sum(dim=-1)
    return distance.mean()


def thickness_loss(sdf: Float[Tensor, "batch n 2"], met: Bool[Tensor, "batch n"]) -> Float[Tensor, ""]:
    """Softly, whether the first and the last inside sample of each ray are inside; a ray that met nothing counts 0.

    A silhouette allows everything behind and before what it needs, and smooth fields use it: faces bulge along the rays that see
    them. A small weight asks for the thinnest of the shapes that explain the masks. Scaled as `silhouette_entropy` is; where
    samples lie much further apart than SOFTNESS, most ends are too deep to be moved.
    """
    return SOFTNESS * (torch.sigmoid(-sdf / SOFTNESS) * met[..., None]).mean()


def hollow_loss(sdf: Float[Tensor, "batch n"], is_between: Bool[Tensor, "batch n"]) -> Float[Tensor, ""]:
    """What samples between two inside ones of their ray lack to lie SURELY_INSIDE: what is made thin would grow hollow.

    Assumed is that no ray leaves an object and enters it again; one that grazes the surface less deep is asked too much.
    """
    return (functional.relu(sdf + SURELY_INSIDE) * is_between).mean()


def view_loss(seen: Seen, azimuth_deg: Float[Tensor, " batch"], elevation_deg: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
    """Cross-entropy of the azimuths, softened over VIEW_SOFTNESS_DEG, and the squared error of the elevation in right angles."""
    azimuths = torch.arange(seen.azimuth_logits.shape[1], device=azimuth_deg.device) * 360 / seen.azimuth_logits.shape[1]
    away = (azimuths - azimuth_deg[:, None] + 180) % 360 - 180
    wanted = functional.softmax(-(away / VIEW_SOFTNESS_DEG).square() / 2, dim=1)
    entropy: Tensor = functional.cross_entropy(seen.azimuth_logits, wanted)
    return entropy + ((seen.elevation_deg - elevation_deg) / 90).square().mean()


def background_angle(masks: Bool[Tensor, "n size size"], fovy_deg: float) -> Float[Tensor, "n size size"]:
    """The smallest angle, in radians, between a background pixel's ray and any ray that meets the object; 0 on the object.

    A point at `t` on that ray is at least t x sin(angle) from the object: the lower bound of `bound_loss`. A mask tells only at
    pixel centres what is inside. Between the nearest object pixel's centre and the background pixel's the outline may lie
    nearly a whole pixel before that centre: anywhere between two rows of pixels, if it runs along them. So one pixel is taken
    off the distance of the centres, and beside an object pixel nothing is known. What passes between pixel centres unseen, as a
    wire does, no mask bounds. Of all directions in which the nearest object pixel may lie the outward one makes the smallest
    angle, so that one is taken. Half precision errs by less than a hundredth of a pixel, and large data sets fit.
    """
    size = masks.shape[-1]
    pixel = 2 * math.tan(math.radians(fovy_deg) / 2) / size
    axis = (torch.arange(size) + 0.5 - size / 2) * pixel
    radius = torch.hypot(axis[:, None], axis[None, :])
    angle = torch.zeros(masks.shape, dtype=torch.float16)
    for i, mask in enumerate(masks):
        if mask.any():  # an empty mask says nothing about distances
            away = torch.from_numpy(ndimage.distance_transform_edt(~mask.numpy())).float()
            angle[i] = torch.atan(radius + (away - 1).clamp(min=0) * pixel) - torch.atan(radius)
    return angle
