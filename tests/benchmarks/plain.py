"""The plain recipe: the same networks, data, batches, samples and hit test, but every sample of every ray in the graph, fp32."""

import torch
from torch import Tensor

from sdfsrn.geometry.bounds import unit_sphere_interval
from sdfsrn.geometry.cameras import pixel_rays
from sdfsrn.rendering.silhouettes import stratified
from sdfsrn.training.losses import silhouette_loss
from sdfsrn.training.sdf_srn import Run
from tests.sdfsrn.rendering.plain import plain_minimum


class PlainRun(Run):
    """Whole pictures at every step."""

    def _train_step(self, batch: Tensor, step: int) -> Tensor:
        """One optimiser step."""
        rays_o, rays_d = pixel_rays(self.views.c2w[batch], self.views.fovy_deg, self.views.size)
        meets = unit_sphere_interval(rays_o[:1], rays_d[:1])[2][0]
        rays_o, rays_d, inside = rays_o[:, meets], rays_d[:, meets], self.views.masks[batch].flatten(1)[:, meets]
        sdf = self.model.sdf(self.model.encoder(self.views.pictures(batch)))
        near, far, _ = unit_sphere_interval(rays_o, rays_d)
        t = stratified(near, far, self.config.n_samples, self._generator(step, 1))
        minima = plain_minimum(sdf, rays_o, rays_d, t)
        loss = silhouette_loss(minima, inside, self._temperature(step))
        self._descend(loss, step)
        zero = torch.zeros(())
        return torch.stack([loss.detach(), loss.detach(), zero, zero])
