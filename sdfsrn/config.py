"""What a user may choose, and within which limits: plain frozen dataclasses, free of torch.

Every field carries its range, unit and meaning in its metadata. The service derives its request schemas from them, so the
limits that a request is checked against are the limits that the library enforces.
"""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

Family = Literal["sphere", "box", "ellipsoid", "wedge", "l_block"]
Output = Literal["silhouettes", "depth", "normals", "mesh", "turntable", "sdf_grid"]
MeshFormat = Literal["glb", "obj", "ply", "stl"]
Frame = Literal["object", "input"]
Symmetry = Literal["none", "mirror"]
Supervision = Literal["own", "pair"]
Background = Literal["auto", "plain", "segment", "none"]
Representation = Literal["neural", "spheres"]
RaySearch = Literal["samples", "tracing"]

MAX_VIEWS = 360
MAX_RENDERED_PIXELS = 100_000_000
MAX_PICTURES = 100_000  # of one synthetic data set; each takes some 66 KB of memory
MAX_STEP_SAMPLES = 2**24  # of one training step; each takes some 50 bytes


def setting(default: Any, description: str, *, low: float | None = None, high: float | None = None) -> Any:
    """A dataclass field with its meaning and its inclusive range."""
    return dataclasses.field(default=default, metadata={"description": description, "low": low, "high": high})


def check_ranges(config: Any) -> None:
    """Raise ValueError naming the first field of a dataclass that lies outside its declared range or choices."""
    for spec in dataclasses.fields(config):
        value = getattr(config, spec.name)
        low, high = spec.metadata.get("low"), spec.metadata.get("high")
        if (low is not None or high is not None) and not (value is None and type(None) in get_args(spec.type)):
            number, named = (int, "whole") if spec.type is int else (int | float, "finite")
            if isinstance(value, bool) or not isinstance(value, number) or not math.isfinite(value):
                raise ValueError(f"{spec.name} must be a {named} number, got {value!r}")
            if (low is not None and value < low) or (high is not None and value > high):
                raise ValueError(f"{spec.name} must lie in [{low}, {high}], got {value!r}")
        if get_origin(spec.type) is Literal and value not in get_args(spec.type):
            raise ValueError(f"{spec.name} must be one of {get_args(spec.type)}, got {value!r}")


@dataclass(frozen=True)
class View:
    """A direction from which the object's centre is looked at: azimuth 0 from +z, 90 from +x; elevation 90 from +y."""

    azimuth_deg: float = setting(0.0, "degrees around +y", low=-3600, high=3600)
    elevation_deg: float = setting(0.0, "degrees above the horizon", low=-90, high=90)

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class SyntheticData:
    """The synthetic data set of the HTTP contract: one picture, mask and known camera per view of each shape."""

    n_shapes: int = setting(50, "number of shapes", low=1, high=100_000)
    families: tuple[Family, ...] = setting(("sphere", "box", "ellipsoid"), "families, dealt out in turn; repeat one for more of it")
    views_per_shape: int = setting(1, "cameras per shape", low=1, high=64)
    seed: int = setting(0, "seed of shapes, colours, light and cameras", low=0, high=2**31 - 1)

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.n_shapes * self.views_per_shape > MAX_PICTURES:
            raise ValueError(
                f"n_shapes x views_per_shape must be at most {MAX_PICTURES} pictures, got {self.n_shapes} x {self.views_per_shape}"
            )
        unknown = set(self.families) - set(get_args(Family))
        if unknown or not self.families:
            raise ValueError(f"families must be a non-empty choice of {get_args(Family)}, got {self.families!r}")


@dataclass(frozen=True)
class SdfSrnConfig:
    """Mini SDF-SRN: one CNN encoder, one shared SDF decoder, silhouettes of one view per shape or a few. `{}` is the recipe."""

    epochs: int = setting(300, "passes over all images", low=1, high=100_000)
    batch_size: int = setting(10, "images per optimiser step", low=1, high=1024)
    n_rays: int = setting(128, "rays per image and step", low=8, high=4096)
    supervision: Supervision = setting(
        "own",
        "whose mask teaches the shape of a picture; own: its own; pair: half of the rays are those of another picture of the "
        "same object, a random one each time, which needs several views per object with cameras that agree",
    )
    outline_share: float = setting(
        0.75, "share of the rays through pixels near the mask's outline, where silhouettes are decided", low=0.0, high=1.0
    )
    n_samples: int = setting(16, "samples per ray in training, between entry to and exit from the unit sphere", low=4, high=512)
    latent_dim: int = setting(128, "length of the latent", low=2, high=1024)
    hidden_dim: int = setting(128, "width of the decoder's layers", low=16, high=1024)
    learning_rate: float = setting(2.8e-3, "peak of the one-cycle schedule of Adam; Muon's is three times that", low=1e-7, high=1.0)
    temperature: float = setting(0.01, "silhouette temperature of training and checkpoint, scene units", low=1e-4, high=1.0)
    silhouette_weight: float = setting(1.0, "weight of the silhouettes' cross-entropy times temperature", low=0.0, high=1e3)
    eikonal_weight: float = setting(0.02, "weight of (|gradient| - 1)^2, Gropp et al. 2020", low=0.0, high=1e3)
    bound_weight: float = setting(
        0.2, "weight of the distance-transform lower bound on background rays, Lin et al. 2020", low=0.0, high=1e3
    )
    view_weight: float = setting(
        5e-4, "weight of the cross-entropy of where the encoder says that its picture was taken from", low=0.0, high=1e3
    )
    centre_weight: float | None = setting(
        None,
        "weight of the squared distance of an object's centre of mass from the origin; default: 2 for synthetic families "
        "that are centred so, 0 for wedges, L-blocks and your own pictures",
        low=0.0,
        high=1e3,
    )
    thickness_weight: float = setting(
        0.0,
        "weight of whether a ray's first and last inside samples are inside: of the shapes that explain the masks the thinnest, "
        "which no ray leaves and enters again; helps where thousands of objects are to be learnt",
        low=0.0,
        high=1e3,
    )
    symmetry: Symmetry = setting(
        "none",
        "assumed of every object; mirror: it equals its mirror image in the plane x = 0 of its frame, so that a picture and its "
        "mirror image have one latent; much is lost where that is false",
    )
    jitter: float = setting(
        0.008,
        "largest random shift of the picture that the encoder sees, as a share of its side; it also grows or shrinks by up to "
        "twice this share: masks of real pictures are never exact to the pixel",
        low=0.0,
        high=0.2,
    )
    checkpoint_every: int = setting(10, "epochs between checkpoints", low=1, high=100_000)
    seed: int = setting(0, "seed of weights, batches, rays and jitter", low=0, high=2**31 - 1)

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.batch_size * self.n_rays * self.n_samples > MAX_STEP_SAMPLES:
            raise ValueError(
                f"n_rays x n_samples x batch_size must be at most {MAX_STEP_SAMPLES} samples per step, "
                f"got {self.n_rays} x {self.n_samples} x {self.batch_size}"
            )


def check_supervision(supervision: Supervision, objects: int, pictures: int) -> None:
    """Raise ValueError if pairs are asked for where every object has a single picture."""
    if supervision == "pair" and objects == pictures:
        raise ValueError(
            "supervision is 'pair', which needs two pictures or more of an object, but every object has one picture "
            f"({objects} objects); choose 'own', or give more views per object"
        )


# Settings that came later, with the values that leave a training as it was before them: older checkpoints do not say them.
LATER: dict[str, Any] = {"supervision": "own", "thickness_weight": 0.0, "jitter": 0.0, "view_weight": 0.0}


def ring(count: int, elevation_deg: float) -> tuple[View, ...]:
    """`count` views evenly around the object at one elevation, the first at azimuth 0."""
    return tuple(View(360.0 * i / count, elevation_deg) for i in range(count))


@dataclass(frozen=True)
class ReconstructionConfig:
    """What to render from a picture, and how."""

    views: tuple[View, ...] = setting(ring(6, 20.0), f"1 to {MAX_VIEWS} views")
    frame: Frame = setting("object", "object: canonical azimuth; input: azimuth relative to the picture's own view")
    input_view: View | None = setting(None, "the picture's own view, if known; else it is estimated")
    camera_distance: float | None = setting(None, "from the object's centre, scene units; default: the model's", low=1.1, high=100)
    fovy_deg: float | None = setting(None, "vertical field of view, degrees; default: the model's", low=1, high=170)
    size: int = setting(256, "pixels per side", low=32, high=1024)
    outputs: tuple[Output, ...] = setting(("silhouettes",), "what to make")
    mesh_format: MeshFormat = setting("glb", "file format of the mesh")
    background: Background = setting(
        "auto",
        "how the object is found without a mask and without alpha; plain: before a background of one colour; segment: by "
        "segmentation; auto: plain if the picture's border has one colour, else segment; none: not at all",
    )
    refine_steps: int = setting(
        0, "at most so many steps of latent and unknown view against the picture's own mask", low=0, high=500
    )
    seed: int = setting(0, "seed of whatever is random", low=0, high=2**31 - 1)

    def __post_init__(self) -> None:
        check_ranges(self)
        if not 1 <= len(self.views) <= MAX_VIEWS:
            raise ValueError(f"views must number 1 to {MAX_VIEWS}, got {len(self.views)}")
        unknown = set(self.outputs) - set(get_args(Output))
        if unknown or not self.outputs:
            raise ValueError(f"outputs must be a non-empty choice of {get_args(Output)}, got {self.outputs!r}")
        if len(self.views) * self.size**2 > MAX_RENDERED_PIXELS:
            raise ValueError(f"views x size^2 must be at most {MAX_RENDERED_PIXELS} pixels, got {len(self.views)} x {self.size}^2")


@dataclass(frozen=True)
class FitConfig:
    """The fit of one object to the silhouettes of its views."""

    representation: Representation = setting(
        "neural", "neural: three fully connected layers on a point's sines; spheres: their centres and radii"
    )
    steps: int = setting(600, "optimiser steps", low=10, high=100_000)
    seconds: float | None = setting(
        None,
        "most seconds that the steps may take; the learning rate then falls with the time, and fewer are taken",
        low=1,
        high=86_400,
    )
    n_rays: int = setting(2_048, "rays per step, three quarters of them near outlines", low=64, high=65_536)
    ray_search: RaySearch = setting(
        "samples",
        "how a ray's nearest place to the surface of a neural field is found; samples: on a grid of the field, coarse to fine; "
        "tracing: by sphere tracing from both ends, which takes longer",
    )
    hidden_dim: int = setting(128, "width of the layers", low=16, high=1024)
    n_spheres: int = setting(128, "spheres, for that representation", low=1, high=512)
    octaves: int = setting(5, "sines of each coordinate: wavelengths 2, 1, 1/2 ... of the unit ball's radius", low=1, high=10)
    learning_rate: float = setting(3e-3, "of Adam, at its highest", low=1e-6, high=0.1)
    eikonal_weight: float = setting(
        0.002, "weight of (|gradient| - 1)^2 beside the surface, Gropp et al. 2020; ten times as much elsewhere", low=0.0, high=1e3
    )
    hold_out: int = setting(5, "every so-many-th view is left out and measured; 0: none is", low=0, high=1_000)
    views: tuple[View, ...] = setting(ring(6, 20.0), f"new views to render, 0 to {MAX_VIEWS}; y is up, azimuth 0 looks from +z")
    size: int = setting(256, "pixels per side of the new views", low=32, high=1024)
    mesh_format: MeshFormat = setting("glb", "file format of the mesh")
    mesh_resolution: int = setting(192, "nodes along each side of the grid that the mesh is made from", low=32, high=512)
    seed: int = setting(0, "seed of weights, rays and points", low=0, high=2**31 - 1)

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.hold_out == 1:
            raise ValueError("hold_out must be 0 or at least 2, got 1: it would leave out every view")
        if len(self.views) > MAX_VIEWS or len(self.views) * self.size**2 > MAX_RENDERED_PIXELS:
            raise ValueError(
                f"views must number 0 to {MAX_VIEWS} and views x size^2 be at most {MAX_RENDERED_PIXELS} pixels, "
                f"got {len(self.views)} x {self.size}^2"
            )


# method -> its configuration; the code that runs it is found under the same name in sdfsrn.training.METHODS
METHODS: dict[str, type] = {"sdf_srn": SdfSrnConfig}

# the folder of the model that a fresh start serves
WEIGHTS = Path(__file__).parent / "weights"
