"""The networks against their description: layers, first shapes, and the decoder as one plain MLP."""

import pytest
import torch
from torch import nn

from sdfsrn.device import fast_dtype
from sdfsrn.networks.decoder import START_RADIUS, Decoder
from sdfsrn.networks.encoder import Encoder
from sdfsrn.networks.model import Model, ModelConfig


def test_encoder_is_four_strided_convolutions_and_two_layers() -> None:
    encoder = Encoder(128)
    convolutions = [layer for layer in encoder.modules() if isinstance(layer, nn.Conv2d)]
    linear = [layer for layer in encoder.modules() if isinstance(layer, nn.Linear)]
    assert [(c.in_channels, c.out_channels, c.stride) for c in convolutions] == [
        (3, 32, (2, 2)),
        (32, 64, (2, 2)),
        (64, 128, (2, 2)),
        (128, 256, (2, 2)),
    ]
    assert len(linear) == 2 and linear[0].in_features == 256 * 4 * 4 and linear[1].out_features == 128


def test_encoder_is_deterministic_and_tells_pictures_apart_from_the_start() -> None:
    torch.manual_seed(0)
    encoder = Encoder(128).eval()
    pictures = torch.zeros(3, 3, 64, 64)
    pictures[0, :, 20:44, 20:44] = 0.8
    pictures[1, :, 28:36, 8:56] = 0.8
    first, again = encoder(pictures), encoder(pictures)
    assert torch.equal(first, again)
    distance = (first[0] - first[1]).norm() / first.norm(dim=1).mean()
    assert distance > 0.1, "one latent for all pictures teaches nothing"


def test_untrained_decoder_is_nearly_a_ball_for_every_latent() -> None:
    torch.manual_seed(0)
    decoder = Decoder(128, 128)
    direction = nn.functional.normalize(torch.randn(4, 500, 3), dim=-1)
    latents = 0.5 * torch.randn(4, 128)  # larger than any that an untrained encoder makes
    with torch.no_grad():
        shares = [(decoder(latents, direction * START_RADIUS * scale) < 0).float().mean(dim=1) for scale in (0.5, 1.6)]
    assert shares[0].min() > 0.98, "no latent may start empty"
    assert shares[1].max() < 0.3, "nor full"


def test_decoder_is_the_plain_mlp_with_latent_and_point_joined() -> None:
    """DeepSDF's form: [latent, point] enters the first layer, and again the third beside the hidden units."""
    torch.manual_seed(1)
    decoder = Decoder(6, 16)
    nn.init.normal_(decoder.point_skip.weight)
    latents, points = torch.randn(2, 6), torch.rand(2, 9, 3)
    joined = torch.cat([latents[:, None].expand(-1, 9, -1), points], dim=-1)
    relu = torch.relu
    first = torch.cat([decoder.latent_in.weight, decoder.point_in.weight], dim=1)
    third = torch.cat([decoder.third.weight, decoder.latent_skip.weight, decoder.point_skip.weight], dim=1)
    hidden = relu(joined @ first.T + decoder.latent_in.bias)
    hidden = relu(hidden @ decoder.second.weight.T + decoder.second.bias)
    hidden = relu(torch.cat([hidden, joined], dim=-1) @ third.T + decoder.latent_skip.bias)
    hidden = relu(hidden @ decoder.fourth.weight.T + decoder.fourth.bias)
    plain = (hidden @ decoder.out.weight.T + decoder.out.bias)[..., 0]
    torch.testing.assert_close(decoder(latents, points), plain)


def test_search_field_is_the_field_in_low_precision_and_has_no_graph() -> None:
    torch.manual_seed(2)
    model = Model(ModelConfig())
    latents = model.encode(torch.rand(2, 3, 64, 64))
    points = torch.rand(2, 4000, 3) * 2 - 1
    low = model.search_sdf(latents, torch.bfloat16)(points)
    assert not low.requires_grad and low.dtype == torch.float32
    torch.testing.assert_close(low, model.sdf(latents)(points).detach(), atol=0.02, rtol=0)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}, "the model itself stays as it was"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_fast_dtype_is_one_the_device_can_multiply(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    dtype = fast_dtype(torch.device(device))
    square = torch.eye(8, device=device, dtype=dtype)
    assert torch.equal(square @ square, square)


def test_a_mirror_plane_is_kept_to_the_last_bit_and_only_where_assumed() -> None:
    points = torch.rand(2, 50, 3) - 0.5
    mirrored = points * torch.tensor([-1.0, 1.0, 1.0])
    for symmetry, same in (("mirror", True), ("none", False)):
        torch.manual_seed(2)
        model = Model(ModelConfig(8, 32, symmetry))
        latents = torch.randn(2, 8)
        for field in (model.sdf(latents), model.search_sdf(latents, torch.float32)):
            assert torch.equal(field(points), field(mirrored)) == same


def test_a_picture_and_its_mirror_image_have_one_latent_only_where_a_mirror_plane_is_assumed() -> None:
    for symmetry, same in (("mirror", True), ("none", False)):
        torch.manual_seed(2)
        pictures = torch.rand(2, 3, 64, 64)
        model = Model(ModelConfig(8, 32, symmetry))
        latents, of_mirrored = model.encode(pictures), model.encode(pictures.flip(-1))
        assert torch.allclose(latents, of_mirrored, atol=1e-6) == same
        assert not torch.allclose(latents[0], latents[1], atol=1e-3), "other pictures have others"
