"""The network of one object: its start, its sines, its gradients, its low precision."""

import math

import pytest
import torch

from sdfsrn.networks.sine_mlp import START_RADIUS, SineMlp, encoded


def test_sines_are_those_of_the_paper() -> None:
    found = encoded(torch.tensor([[0.25, -0.5, 0.0]]), octaves=2)[0]
    waves = [math.pi * part * 2**k for part in (0.25, -0.5, 0.0) for k in range(2)]
    expected = [0.25, -0.5, 0.0, *(math.sin(wave) for wave in waves), *(math.cos(wave) for wave in waves)]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_an_untrained_network_is_roughly_a_ball(seed: int) -> None:
    torch.manual_seed(seed)
    network = SineMlp(128, 5)
    points = torch.randn(1, 500, 3)
    points = points / points.norm(dim=-1, keepdim=True)
    with torch.no_grad():
        assert (network(0.1 * points) < 0).float().mean() > 0.95
        assert (network(points) > 0).float().mean() > 0.95
        assert float((network(START_RADIUS * points)).abs().mean()) < 0.25


def test_gradients_agree_with_finite_differences() -> None:
    torch.manual_seed(0)
    network = SineMlp(16, 2).double()
    points = torch.rand(1, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(network, (points,))


def test_low_precision_is_near_the_field() -> None:
    torch.manual_seed(0)
    network, points = SineMlp(64, 5), torch.rand(1, 1_000, 3) - 0.5
    with torch.no_grad():
        exact = network(points)
    assert torch.equal(network.search_sdf(torch.float32)(points), exact)
    assert float((network.search_sdf(torch.bfloat16)(points) - exact).abs().max()) < 0.03
