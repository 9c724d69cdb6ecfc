"""Mini SDF-SRN: an encoder and a shared SDF decoder, taught by silhouettes of one view or a few per shape.

The 3-D shape is never shown. A pixel's error moves the signed distance at the point where its ray comes closest to the
surface; the decoder, shared by all shapes, is what makes single views of many shapes agree on geometry.
After SDF-SRN (Lin et al. 2020), with the renderer of DFR (Wu & Sun 2020).
"""

import copy
import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from sdfsrn.checkpoint import Checkpoint
from sdfsrn.config import LATER, SdfSrnConfig, SyntheticData, check_supervision
from sdfsrn.data.dataset import Dataset, open_dataset
from sdfsrn.data.views import outline_bands, pixels_outwards, pixels_reaching
from sdfsrn.device import fast_dtype, pick_device
from sdfsrn.evaluation.figures import SHOWN, compare, loss_figure, novel_views_figure, picture_grid
from sdfsrn.evaluation.protocol import evaluate_model
from sdfsrn.familiarity import Familiarity
from sdfsrn.geometry.bounds import points_in_ball, unit_sphere_interval
from sdfsrn.geometry.cameras import pixel_rays, rays_through
from sdfsrn.images import TILE_RADIUS
from sdfsrn.networks.encoder import encoder_images
from sdfsrn.networks.model import Model, ModelConfig, Seen
from sdfsrn.rendering import Sdf
from sdfsrn.rendering.silhouettes import MISS, along, inside_span, points_at, ray_minimum, seek_minimum, soft_silhouette, stratified
from sdfsrn.threads import share_out, undivided_operations
from sdfsrn.training import Interrupted, TrainingCollapsed
from sdfsrn.training.kind import familiarity
from sdfsrn.training.losses import (
    background_angle,
    bound_loss,
    centre_loss,
    eikonal_loss,
    hollow_loss,
    silhouette_entropy,
    thickness_loss,
    view_loss,
)

# phase, step, total, metrics; may raise, which is how a caller stops a training
Progress = Callable[[str, int, int, dict[str, float]], None]

OPTIMIZER_STATE = (("step", "exp_avg", "exp_avg_sq"), ("momentum_buffer",))
LOSSES = ("loss", "silhouette_entropy", "eikonal_loss", "bound_loss")
HISTORY = ("epoch", "step", *LOSSES)
MUON_RATE = 3.0  # times Adam's
MUON_DECAY = 0.3  # of the matrices, times their rate and per step
CENTRE_WEIGHT = 2.0  # where nothing else is said and objects are known to be centred; more is better at unseen angles, but slower
CENTRE_POINTS, CENTRE_RADIUS = 128, 0.85  # per object, in scene units: few shapes reach further, and then hardly
SOLIDITY = 1.5  # times the weight of thickness: what weighs against hollows
OUTLINE = 3  # pixels to either side of it that count as near
AVERAGED = 0.98  # of the averaged weights that each step leaves as they were
EVERYWHERE = 8  # one ray in so many also carries a random sample, for what must hold everywhere
SETTLED_STEPS = 100  # before this an empty field may still recover
EVALUATED = 100  # shapes at most that the closing evaluation measures
SHARES = 2  # of a step's pictures
CHECKPOINT = "checkpoint.safetensors"


def train(
    config: SdfSrnConfig,
    data: SyntheticData | Path,
    folder: Path,
    *,
    resume_from: Path | None = None,
    init_from: Path | None = None,
    device: str = "auto",
    progress: Progress = lambda phase, step, total, metrics: None,
    on_checkpoint: Callable[[Path, int], None] = lambda path, step: None,
) -> dict[str, Any]:
    """Train, evaluate, and leave checkpoint, metrics and figures in `folder`; returns the evaluation.

    `data` is what to draw, or a file of views (`sdfsrn.data.dataset.save_dataset`).
    `resume_from` goes on with an interrupted run of the same configuration and data, bit-equal on one CPU; `init_from`
    starts from another model's weights. When `progress` raises Interrupted, a checkpoint is left of the very step. Raises
    TrainingCollapsed, and ValueError for a checkpoint that does not fit.
    """
    if isinstance(data, SyntheticData):  # before it is drawn, which may take minutes
        check_supervision(config.supervision, data.n_shapes, data.n_shapes * data.views_per_shape)
    folder.mkdir(parents=True, exist_ok=True)
    progress("data", 0, 1, {})
    dataset = open_dataset(data, lambda done, total: progress("data", done, total, {}))
    run = Run(config, dataset, pick_device(device))
    if resume_from is not None:
        run.restore(Checkpoint.load(resume_from))
    elif init_from is not None:
        run.adopt(Checkpoint.load(init_from))
    run.watch()

    def keep() -> None:
        run.checkpoint().save(folder / CHECKPOINT)
        on_checkpoint(folder / CHECKPOINT, run.step)

    try:
        while run.epoch < config.epochs:
            run.train_epoch(lambda: progress("training", run.epoch, config.epochs, {}))
            progress("training", run.epoch, config.epochs, run.history[-1])
            last = run.epoch == config.epochs
            if last or run.epoch % config.checkpoint_every == 0 or run.epoch == config.epochs // 2:
                run.watch()
                keep()
    except Interrupted:
        keep()
        raise
    run.known = familiarity(run.checkpoint(), dataset, run.device, lambda done, total: progress("familiarity", done, total, {}))
    run.checkpoint().save(folder / CHECKPOINT)
    evaluation = evaluate_model(
        run.averaged,
        dataset.part(EVALUATED),
        config.temperature,
        lambda done, total: progress("evaluation", done, total, {}),
    )
    (folder / "evaluation.json").write_text(json.dumps(evaluation.report, indent=1))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in run.history))
    loss_figure(run.history, folder / "loss.png")
    run.convergence_figure(folder / "convergence.png")
    novel_views_figure(evaluation.novel_truth, evaluation.novel_prediction, dataset.names, folder / "novel_views.png")
    return evaluation.report


def make_optimizers(model: Model) -> tuple[torch.optim.Optimizer, ...]:
    """Adam, and for the decoder's square matrices Muon (Jordan et al. 2024, scaled as by Liu et al. 2025) at a higher rate.

    With Adam alone the same number of steps fits the masks less well and unseen angles too.
    """
    matrices = [layer.weight for layer in (model.decoder.second, model.decoder.third, model.decoder.fourth)]
    others = [parameter for parameter in model.parameters() if all(parameter is not matrix for matrix in matrices)]
    adam = torch.optim.Adam(others, fused=model.device.type != "mps")
    muon = torch.optim.Muon(matrices, weight_decay=MUON_DECAY, adjust_lr_fn="match_rms_adamw")
    for optimizer, scale in ((adam, 1.0), (muon, MUON_RATE)):
        for group in optimizer.param_groups:
            group["lr_scale"] = scale
    return adam, muon


class Drawn(NamedTuple):
    """What a step sees of some pictures, all random choices made: each tensor has an entry per picture."""

    images: Float[Tensor, "batch 3 64 64"]
    azimuth_deg: Float[Tensor, " batch"]
    elevation_deg: Float[Tensor, " batch"]
    rays_o: Float[Tensor, "batch n_rays 3"]
    rays_d: Float[Tensor, "batch n_rays 3"]
    inside: Bool[Tensor, "batch n_rays"]
    angle: Float[Tensor, "batch n_rays"]
    t: Float[Tensor, "batch n_rays n_samples"]
    t_random: Float[Tensor, "batch n_some"]
    in_ball: Float[Tensor, "batch n_points 3"]

    def shares(self, count: int) -> list["Drawn"]:
        """The same in at most `count` parts of about as many pictures."""
        return [Drawn(*parts) for parts in zip(*(part.chunk(count) for part in self), strict=True)]


def _anywhere(sdf: Sdf, points: Float[Tensor, "batch n 3"]) -> tuple[Float[Tensor, "batch n"], Float[Tensor, ""]]:
    """The distance at points that need not lie near the surface, and the Eikonal loss there."""
    points = points.detach().requires_grad_()
    distance = sdf(points)
    (gradient,) = torch.autograd.grad(distance.sum(), points, create_graph=True)
    return distance, eikonal_loss(gradient)


class Run:
    """The state of one training: networks, optimiser, history. Randomness is derived from seed and step, so none is state."""

    def __init__(self, config: SdfSrnConfig, dataset: Dataset, device: torch.device) -> None:
        check_supervision(config.supervision, len(dataset), len(dataset.views))
        self.config, self.dataset, self.device = config, dataset, device
        self.views = views = dataset.views
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = Model(ModelConfig(config.latent_dim, config.hidden_dim, config.symmetry, view_head=True)).to(device)
        self.averaged = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.fast_dtype = fast_dtype(device)
        known_weight = CENTRE_WEIGHT if dataset.is_centred else 0.0
        self.centre_weight = known_weight if config.centre_weight is None else config.centre_weight
        self.model.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizers = make_optimizers(self.model)
        self.object_of = dataset.object_of
        self.first, self.count = torch.tensor(dataset.first), self.object_of.bincount()
        self.background_angle = background_angle(views.masks, views.fovy_deg).flatten(1)
        self.outwards, self.cosines = pixels_outwards(views.fovy_deg, views.size)
        self.near_outline = outline_bands(views.masks, OUTLINE).flatten(1)
        self.steps_per_epoch = -(-len(views) // config.batch_size)
        self.step = 0
        self.rows: list[Tensor] = []
        self.history: list[dict[str, float]] = []
        self.snapshots: dict[str, Tensor] = {}
        self.known: Familiarity | None = None

    @property
    def epoch(self) -> int:
        """Whole epochs made so far; `step` counts optimiser steps, `rows` holds the losses of the epoch under way."""
        return self.step // self.steps_per_epoch

    def train_epoch(self, each_step: Callable[[], None] = lambda: None) -> dict[str, float]:
        """Every picture once, in a random order, or what is left of an interrupted epoch; returns the epoch's mean losses."""
        self.model.train()
        order = torch.randperm(len(self.views), generator=self._generator(self.epoch, 0))
        for batch in order.split(self.config.batch_size)[len(self.rows) :]:
            each_step()
            self.rows.append(self.make_step(batch))
        means = torch.stack(self.rows).mean(dim=0).tolist()
        self.rows = []
        row = dict(zip(LOSSES, means, strict=True))
        if not all(value == value and abs(value) < 1e6 for value in means):
            raise TrainingCollapsed(f"the loss became {row['loss']} in epoch {self.epoch}; lower learning_rate or change seed")
        self.history.append({"epoch": self.epoch, "step": self.step, **row})
        return row

    def make_step(self, batch: Tensor) -> Tensor:
        """One optimiser step on some of the pictures; returns the LOSSES.

        On a CPU each thread takes its share of the pictures through all of the forward and the backward pass, and threads meet
        once. The shares depend on the batch alone, every operation has one thread, and the shares' gradients are added in
        order: so a step is the same to the bit whatever the number of threads.
        """
        with undivided_operations():
            losses = self._train_step(batch, self.step)
            self._average()
        self.step += 1
        return losses.cpu()

    @torch.no_grad()
    def _average(self) -> None:
        """What is evaluated and served: an average over the last steps, far better than any of them while the rate is high.

        Polyak & Juditsky 1992; exponential, and shorter at the beginning.
        """
        share = 1 - min(AVERAGED, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.averaged.parameters()), list(self.model.parameters()), share)

    def _train_step(self, batch: Tensor, step: int) -> Tensor:
        drawn = self._draw(batch, self._generator(step, 1))
        shares = drawn.shares(SHARES) if self.device.type == "cpu" else [drawn]
        found = share_out(lambda share: self._gradients(share, len(share.images) / len(batch)), shares)
        losses, gradients = found[0]
        for more_losses, more in found[1:]:
            losses = losses + more_losses
            torch._foreach_add_(gradients, more)
        self._descend(gradients, step)
        return losses

    def _draw(self, batch: Tensor, generator: torch.Generator) -> Drawn:
        rays_o, rays_d, inside, angle = self._rays(batch, generator)
        images = self._images(batch, generator)
        near, far, _ = unit_sphere_interval(rays_o, rays_d)
        t = stratified(near, far, self.config.n_samples, generator)
        n_points = CENTRE_POINTS if self.centre_weight else 0
        in_ball = points_in_ball(len(batch), n_points, generator).to(self.device) * CENTRE_RADIUS
        some_t = t[:, ::EVERYWHERE]
        chosen = torch.randint(t.shape[-1], (*some_t.shape[:2], 1), generator=generator).to(self.device)
        t_random = some_t.gather(-1, chosen)[..., 0]
        azimuth_deg, elevation_deg = (part[batch].to(self.device) for part in (self.views.azimuth_deg, self.views.elevation_deg))
        return Drawn(images, azimuth_deg, elevation_deg, rays_o, rays_d, inside, angle, t, t_random, in_ball)

    def _gradients(self, drawn: Drawn, weight: float) -> tuple[Tensor, list[Tensor]]:
        """The LOSSES of some of a step's pictures and the gradients of all parameters, both times their `weight` in the batch."""
        losses = self._losses(drawn) * weight
        # what a loss does not depend on gets zeros
        gradients = torch.autograd.grad(losses[0], list(self.model.parameters()), allow_unused=True, materialize_grads=True)
        return losses.detach(), list(gradients)

    def _losses(self, drawn: Drawn) -> Tensor:
        """The LOSSES, each a mean over the pictures; the first is what is made smaller."""
        config = self.config
        images, azimuth_deg, elevation_deg, rays_o, rays_d, inside, angle, t, t_random, in_ball = drawn
        latents, seen = self._look(images)
        sdf = self.model.sdf(latents)
        search = self.model.search_sdf(latents, self.fast_dtype)
        t_picked, _ = seek_minimum(search, rays_o, rays_d, t)
        some_o, some_d, some_t = (part[:, ::EVERYWHERE] for part in (rays_o, rays_d, t))
        asked = [rays_o + t_picked[..., None] * rays_d, in_ball]
        if config.thickness_weight:
            ends, met = inside_span(along(search, some_o, some_d, some_t), some_t)
            asked.append(points_at(some_o, some_d, ends).flatten(1, 2))
        # one call is quicker than several
        picked, sdf_in_ball, *at_ends = sdf(torch.cat(asked, dim=1)).split([part.shape[1] for part in asked], dim=1)
        random, eikonal = _anywhere(sdf, some_o + t_random[..., None] * some_d)
        silhouette = silhouette_entropy(picked, inside, config.temperature)
        bound = bound_loss(random, t_random * angle[:, ::EVERYWHERE].sin()) + bound_loss(picked, t_picked * angle.sin())
        loss = config.silhouette_weight * silhouette + config.eikonal_weight * eikonal + config.bound_weight * bound
        loss = loss + config.view_weight * view_loss(seen, azimuth_deg, elevation_deg)
        if self.centre_weight:
            loss = loss + self.centre_weight * centre_loss(sdf_in_ball, in_ball)
        if config.thickness_weight:
            is_between = inside[:, ::EVERYWHERE] & met & (ends[..., 0] < t_random) & (t_random < ends[..., 1])
            thickness = thickness_loss(at_ends[0].view(ends.shape), met) + SOLIDITY * hollow_loss(random, is_between)
            loss = loss + config.thickness_weight * thickness
        return torch.stack([loss, silhouette, eikonal, bound])

    def _descend(self, gradients: list[Tensor], step: int) -> None:
        for parameter, gradient in zip(self.model.parameters(), gradients, strict=True):
            # a fused optimiser goes through memory: parameter and gradient must lie there alike
            alike = gradient.stride() == parameter.stride()
            parameter.grad = gradient if alike else torch.empty_like(parameter).copy_(gradient)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self._learning_rate(step) * group["lr_scale"]
            optimizer.step()

    def _images(self, batch: Tensor, generator: torch.Generator | None) -> Tensor:
        """What the encoder sees of a batch, in memory pixel by pixel as its convolutions like it best."""
        tiles = self.views.tiles[batch].to(self.device)
        return encoder_images(tiles, self.config.jitter, generator).contiguous(memory_format=torch.channels_last)

    def _look(self, images: Tensor) -> tuple[Tensor, Seen]:
        """Latents and views of pictures; the convolutions in low precision where that is fast."""
        is_low = self.fast_dtype != torch.float32
        # threads would share the cache, and with it parts of their graphs
        with torch.autocast(self.device.type, self.fast_dtype, enabled=is_low, cache_enabled=False):
            latents, seen = self.model.look(images)
        return latents.float(), Seen(seen.azimuth_logits.float(), seen.elevation_deg.float())

    def _rays(self, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`n_rays` in the world of each picture: rays, inside or not, background angle."""
        n_rays = self.config.n_rays
        if self.config.supervision == "own":
            parts = [self._rays_of(batch, batch, n_rays, generator)]
        else:
            others = self._others(batch, generator)
            parts = [
                self._rays_of(batch, batch, n_rays - n_rays // 2, generator),
                self._rays_of(batch, others, n_rays // 2, generator),
            ]
        rays, directions, inside, angle = (torch.cat(each, dim=1).to(self.device) for each in zip(*parts, strict=True))
        return rays, directions, inside, angle

    def _others(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        """For each picture a random other one of its object, or itself if there is none."""
        first, count = (of_object[self.object_of[batch]] for of_object in (self.first, self.count))
        further = 1 + torch.rand(len(batch), generator=generator) * (count - 1)
        return first + (batch - first + further.long()) % count

    def _rays_of(self, batch: Tensor, shown: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Through `count` random pixels of the pictures `shown`, in the worlds of those of the batch.

        An object seen from its end is large in its world, and may reach out of the unit sphere where another picture looks.
        Beyond the sphere nothing is rendered, so a ray that misses it is not inside.
        """
        views, c2w = self.views, self.views.c2w[shown]
        c2w[:, :3, 3] *= (views.scale[batch] / views.scale[shown])[:, None]
        reaching = pixels_reaching(self.cosines, torch.linalg.vector_norm(c2w[:, :3, 3], dim=-1))
        pixel = self._pixels(shown, reaching, count, generator)
        rays_o, rays_d = rays_through(c2w, views.fovy_deg, views.size, pixel)
        _, _, meets = unit_sphere_interval(rays_o, rays_d)
        inside = views.masks[shown].flatten(1).gather(1, pixel) & meets
        return rays_o, rays_d, inside, self.background_angle[shown].gather(1, pixel).float()

    def _pixels(self, shown: Tensor, reaching: Tensor, count: int, generator: torch.Generator) -> Int64[Tensor, "batch count"]:
        """Near the mask's outline, and anywhere among the first `reaching` pixels outwards."""
        n_near = round(self.config.outline_share * count)
        place = torch.rand(len(shown), count - n_near, generator=generator) * reaching[:, None]
        anywhere = self.outwards[place.long()]
        if n_near == 0:
            return anywhere
        weights = self.near_outline[shown] + 1e-6  # an empty mask has no outline
        near = torch.multinomial(weights, n_near, replacement=True, generator=generator)
        return torch.cat([anywhere, near], dim=1)[:, torch.randperm(count, generator=generator)]

    def _learning_rate(self, step: int) -> float:
        """One cycle: a linear warm-up over the first tenth, then a cosine to a hundredth."""
        total = self.config.epochs * self.steps_per_epoch
        warm = max(1, total // 10)
        if step < warm:
            return self.config.learning_rate * (step + 1) / warm
        fraction = (step - warm) / max(1, total - warm)
        return self.config.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * fraction)))

    def _generator(self, index: int, purpose: int) -> torch.Generator:
        # torch heeds 32 bits of a seed; an odd factor keeps the sequences of different seeds apart
        return torch.Generator().manual_seed((0x9E3779B1 * self.config.seed + 2 * index + purpose) % 2**32)

    def watch(self) -> None:
        """Render the shown shapes, keep the picture at the start, the middle and the end, and refuse to go on from a collapse."""
        minima = self._training_minima()
        if self.step >= SETTLED_STEPS:
            meets = minima != MISS  # the other rays are outside whatever the field
            share = (minima < 0).flatten(1).sum(dim=1) / meets.flatten(1).sum(dim=1)
            if bool((share == 0).all()) or bool((share > 0.95).all()):
                state = "empty" if float(share.max()) == 0 else "full"
                raise TrainingCollapsed(
                    f"the field of every shape looked at is {state} after epoch {self.epoch}; try another seed or a "
                    "lower learning_rate"
                )
        pictures = (soft_silhouette(minima, self.config.temperature) * 255).round().to(torch.uint8)
        for name, epoch in (("start", 0), ("middle", self.config.epochs // 2), ("end", self.config.epochs)):
            if self.epoch == epoch:  # a short training starts and ends in the middle
                self.snapshots.setdefault(name, pictures.clone())

    def _training_minima(self) -> Tensor:
        shown = self.dataset.part(SHOWN).first_views
        rays_o, rays_d = pixel_rays(shown.c2w.to(self.device), shown.fovy_deg, shown.size)
        with torch.no_grad():
            latents = self.averaged.encode(encoder_images(shown.tiles.to(self.device)))
            minima = ray_minimum(self.averaged.sdf(latents), rays_o, rays_d, self.config.n_samples)
        return minima.view(-1, shown.size, shown.size).cpu()

    def convergence_figure(self, path: Path) -> None:
        """Truth, prediction and difference at the start, in the middle and at the end."""
        shown = self.dataset.part(SHOWN)
        truth = shown.first_views.masks.numpy()
        rows, names = [list(truth.astype("float32"))], ["truth"]
        for name in ("start", "middle", "end"):
            if name in self.snapshots:
                predicted = self.snapshots[name].float().numpy() / 255
                rows += [list(predicted), [compare(p, t) for p, t in zip(predicted, truth, strict=True)]]
                names += [name, "difference"]
        picture_grid(rows, names, [name[-12:] for name in shown.names], path, "training views; red: too much, blue: missing")

    def checkpoint(self) -> Checkpoint:
        """Everything needed to resume and to serve."""
        state = {f"snapshot.{name}": picture for name, picture in self.snapshots.items()}
        state |= {f"trained.{name}": value for name, value in self.model.state_dict().items()}
        if self.rows:
            state["rows"] = torch.stack(self.rows)
        if self.history:
            state["history"] = torch.tensor([[row[name] for name in HISTORY] for row in self.history], dtype=torch.float64)
        names: dict[Tensor, str] = {parameter: name for name, parameter in self.model.named_parameters()}
        for optimizer in self.optimizers:
            for parameter, moments in optimizer.state.items():
                state |= {f"optimizer.{moment}.{names[parameter]}": value for moment, value in moments.items()}
        return Checkpoint(
            self.model.config,
            dict(self.averaged.state_dict()),
            self.step,
            self.config.temperature,
            self.dataset.mask_radius,
            self.views.camera_distance,
            self.views.fovy_deg,
            "sdf_srn",
            dataclasses.asdict(self.config),
            self.dataset.description,
            self.dataset.digest,
            float(self.views.elevation_deg.min()),
            float(self.views.elevation_deg.max()),
            TILE_RADIUS,
            state,
            dict(vars(self.known)) if self.known else {},
        )

    def restore(self, saved: Checkpoint) -> None:
        """Go on where a checkpoint of the same run stopped."""
        if saved.dataset_digest != self.dataset.digest:
            raise ValueError(f"the checkpoint was trained on {saved.dataset_digest}, this run's data are {self.dataset.digest}")
        differing = (LATER | saved.config).items() ^ dataclasses.asdict(self.config).items()
        if differing:
            told = ", ".join(sorted({name for name, _ in differing}))
            raise ValueError(f"the checkpoint belongs to another configuration, which differs in {told}")
        self.adopt(saved)
        self.model.load_state_dict({name[8:]: value for name, value in saved.state.items() if name.startswith("trained.")})
        names: dict[Tensor, str] = {parameter: name for name, parameter in self.model.named_parameters()}
        for optimizer, moments in zip(self.optimizers, OPTIMIZER_STATE, strict=True) if saved.step else ():
            for group in optimizer.param_groups:
                # a fused optimiser counts its steps on the device, a moment lies in memory as its parameter does
                counter = torch.empty((), device=self.device if group.get("fused") else "cpu")
                for parameter in group["params"]:
                    for moment in moments:
                        kept = torch.empty_like(counter if moment == "step" else parameter)
                        optimizer.state[parameter][moment] = kept.copy_(saved.state[f"optimizer.{moment}.{names[parameter]}"])
        self.snapshots = {name[9:]: value for name, value in saved.state.items() if name.startswith("snapshot.")}
        self.step = saved.step
        self.rows = list(saved.state["rows"]) if "rows" in saved.state else []
        rows = saved.state["history"].tolist() if "history" in saved.state else []
        self.history = [dict(zip(HISTORY, (int(row[0]), int(row[1]), *row[2:]), strict=True)) for row in rows]

    def adopt(self, saved: Checkpoint) -> None:
        """Take over a model's weights. Raises ValueError for networks of another kind, or that see pictures in another way."""
        if saved.model_config != self.model.config:
            raise ValueError(f"the checkpoint's networks are {saved.model_config}, this run's are {self.model.config}")
        if saved.tile_radius != TILE_RADIUS:
            raise ValueError(f"the checkpoint sees masks of radius {saved.tile_radius}, this run {TILE_RADIUS}; train it anew")
        for model in (self.model, self.averaged):
            model.load_state_dict({name: value.float() for name, value in saved.weights.items()})
