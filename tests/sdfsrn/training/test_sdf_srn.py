"""Training as a whole: artifacts, resumption to the bit, collapse, and checkpoints that do not fit."""

import dataclasses
from pathlib import Path

import pytest
import torch

from sdfsrn.checkpoint import Checkpoint
from sdfsrn.checkpoint_header import read_facts
from sdfsrn.config import LATER, Family, SyntheticData
from sdfsrn.data.dataset import synthetic_dataset
from sdfsrn.evaluation.protocol import encode
from sdfsrn.geometry.bounds import points_in_ball
from sdfsrn.images import Picture
from sdfsrn.reconstruct import Reconstructor
from sdfsrn.training import Interrupted, TrainingCollapsed
from sdfsrn.training.sdf_srn import CHECKPOINT, Run, train
from tests.sdfsrn.conftest import TINY_CONFIG, TINY_DATA, TinyTraining
from tests.sdfsrn.given import pictures_of


def test_leaves_every_artifact(tiny_training: TinyTraining) -> None:
    names = {path.name for path in tiny_training.folder.iterdir()}
    assert names == {CHECKPOINT, "metrics.jsonl", "loss.png", "convergence.png", "novel_views.png", "evaluation.json"}
    assert tiny_training.checkpoint_steps == [4, 8]
    assert tiny_training.report["n_shapes"] == 6


# progress is told before each step, after each epoch, and in the evaluation: so many steps were made by then
STEPS_AT_CALL = (0, 1, 2, 2, 3, 4, 4, 5, 6, 6, 7, 8, 8)


@pytest.mark.parametrize("call", range(len(STEPS_AT_CALL)))
@pytest.mark.slow
def test_interrupted_and_resumed_ends_bit_equal(tiny_training: TinyTraining, tmp_path: Path, call: int) -> None:
    """Wherever it is: an epoch has two steps, the training eight."""
    calls = iter(range(100))
    first, second = tmp_path / "first", tmp_path / "second"

    def stop(phase: str, *_: object) -> None:
        if phase != "data" and next(calls) >= call:
            raise Interrupted("pause")

    with pytest.raises(Interrupted):
        train(TINY_CONFIG, TINY_DATA, first, device="cpu", progress=stop)
    assert Checkpoint.load(first / CHECKPOINT).step == STEPS_AT_CALL[call]
    report = train(TINY_CONFIG, TINY_DATA, second, resume_from=first / CHECKPOINT, device="cpu")
    whole, resumed = Checkpoint.load(tiny_training.checkpoint), Checkpoint.load(second / CHECKPOINT)
    assert all(torch.equal(value, resumed.weights[name]) for name, value in whole.weights.items())
    assert all(torch.equal(value, resumed.state[name]) for name, value in whole.state.items())
    assert (second / "metrics.jsonl").read_bytes() == (tiny_training.folder / "metrics.jsonl").read_bytes()
    assert report == tiny_training.report
    assert {path.name for path in second.iterdir()} == {path.name for path in tiny_training.folder.iterdir()}


def test_a_training_can_start_from_anothers_weights(tiny_training: TinyTraining, tmp_path: Path) -> None:
    """At a learning rate of next to nothing it ends where it started: at the parent, not at its own seed."""
    config = dataclasses.replace(TINY_CONFIG, epochs=1, learning_rate=1e-7, seed=77)
    train(config, dataclasses.replace(TINY_DATA, seed=9), tmp_path, init_from=tiny_training.checkpoint, device="cpu")
    parent, child = Checkpoint.load(tiny_training.checkpoint), Checkpoint.load(tmp_path / CHECKPOINT)
    for name, value in parent.weights.items():
        torch.testing.assert_close(child.weights[name], value, atol=1e-5, rtol=0)
    assert child.step == 2 and len(child.state["history"]) == 1


def test_with_a_mirror_plane_a_picture_and_its_mirror_image_have_one_latent_wherever_they_are_encoded(tmp_path: Path) -> None:
    run = Run(dataclasses.replace(TINY_CONFIG, symmetry="mirror", jitter=0.0), synthetic_dataset(TINY_DATA), torch.device("cpu"))
    run.fast_dtype = torch.float32  # else rounding differs with the order of the pixels
    run.checkpoint().save(tmp_path / CHECKPOINT)
    served, views, pictures = Reconstructor.load(tmp_path / CHECKPOINT, "cpu"), run.views, pictures_of(TINY_DATA, 256)
    mirrored = dataclasses.replace(views, tiles=views.tiles.flip(-1), masks=views.masks.flip(-1))
    turned = [Picture(picture.rgb[:, ::-1], picture.mask[:, ::-1]) for picture in pictures]
    latents: list[list[torch.Tensor]] = []
    for run.views, sent in ((views, pictures), (mirrored, turned)):
        looked = torch.cat([served.look(picture).latent for picture in sent])
        latents.append([run._look(run._images(torch.arange(6), None))[0], encode(run.averaged, run.views), looked])
    for as_it_is, of_mirrored in zip(*latents, strict=True):
        torch.testing.assert_close(as_it_is, of_mirrored)
        assert not torch.allclose(as_it_is[0], as_it_is[1]), "other pictures have others"


def test_another_networks_weights_are_refused(tiny_training: TinyTraining, tmp_path: Path) -> None:
    config = dataclasses.replace(TINY_CONFIG, hidden_dim=48)
    with pytest.raises(ValueError, match="networks are"):
        train(config, TINY_DATA, tmp_path, init_from=tiny_training.checkpoint, device="cpu")


def test_another_seed_draws_other_rays() -> None:
    draws = []
    for seed in (0, 7):
        run = Run(dataclasses.replace(TINY_CONFIG, seed=seed), synthetic_dataset(TINY_DATA), torch.device("cpu"))
        draws.append(torch.rand(4, generator=run._generator(3, 1)))
    assert not torch.equal(*draws)


def test_the_averaged_weights_are_values_and_no_graph() -> None:
    run = Run(TINY_CONFIG, synthetic_dataset(TINY_DATA), torch.device("cpu"))
    run.train_epoch()
    assert all(weight.is_leaf and not weight.requires_grad for weight in run.averaged.parameters())


@pytest.mark.parametrize(
    ("families", "given", "weight"), [(("box",), None, 2.0), (("box", "wedge"), None, 0.0), (("wedge",), 0.7, 0.7)]
)
def test_objects_are_said_to_be_centred_where_they_are(families: tuple[Family, ...], given: float | None, weight: float) -> None:
    config = dataclasses.replace(TINY_CONFIG, centre_weight=given)
    run = Run(config, synthetic_dataset(SyntheticData(n_shapes=2, families=families)), torch.device("cpu"))
    assert run.centre_weight == weight


def test_the_settings_of_the_default_model_too_resume_bit_equal(tmp_path: Path) -> None:
    config = dataclasses.replace(TINY_CONFIG, symmetry="mirror", thickness_weight=0.05, epochs=2)
    whole, first, second = (Run(config, synthetic_dataset(TINY_DATA), torch.device("cpu")) for _ in range(3))
    for run in (whole, first):
        run.train_epoch()
    first.checkpoint().save(tmp_path / CHECKPOINT)
    second.restore(Checkpoint.load(tmp_path / CHECKPOINT))
    for run in (whole, second):
        run.train_epoch()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name


def test_a_hollow_is_filled_where_thin_shapes_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell's gradient, in the distance of what it encloses, is the one that fills it."""
    config = dataclasses.replace(TINY_CONFIG, thickness_weight=1.0, n_rays=256, n_samples=32, outline_share=0.0)
    run = Run(config, synthetic_dataset(TINY_DATA), torch.device("cpu"))
    enclosed = torch.zeros((), requires_grad=True)

    def shell(points: torch.Tensor) -> torch.Tensor:
        radius = points.norm(dim=-1)
        return torch.where(radius < 0.2, 0.1 + enclosed, (radius - 0.3).abs() - 0.1)

    monkeypatch.setattr(run.model, "sdf", lambda latents: shell)
    monkeypatch.setattr(run.model, "search_sdf", lambda latents, dtype: shell)
    run.config = dataclasses.replace(run.config, silhouette_weight=0.0, eikonal_weight=0.0, bound_weight=0.0)
    run.centre_weight = 0.0
    for step in range(10):
        run._losses(run._draw(torch.arange(6), run._generator(step, 1)))[0].backward()
    assert enclosed.grad is not None and enclosed.grad > 0


def test_where_thin_shapes_are_asked_for_they_become_thinner() -> None:
    volumes = []
    for weight in (0.0, 20.0):
        config = dataclasses.replace(TINY_CONFIG, thickness_weight=weight, learning_rate=1e-3, epochs=8)
        run = Run(config, synthetic_dataset(TINY_DATA), torch.device("cpu"))
        for _ in range(config.epochs):
            run.train_epoch()
        points = points_in_ball(6, 4_000, torch.Generator().manual_seed(0))
        volumes.append(float((run.model.sdf(encode(run.model, run.views))(points) < 0).float().mean()))
    assert 0 < volumes[1] < 0.9 * volumes[0]


@pytest.mark.parametrize("setting", list(LATER))
def test_a_checkpoint_from_before_a_setting_existed_is_of_the_same_run(tiny_training: TinyTraining, setting: str) -> None:
    """If the setting now has the value that leaves a training as it was before."""
    saved, as_before = Checkpoint.load(tiny_training.checkpoint), {setting: LATER[setting]}
    older = {name: value for name, value in saved.config.items() if name != setting}
    run = Run(dataclasses.replace(TINY_CONFIG, **as_before), synthetic_dataset(TINY_DATA), torch.device("cpu"))
    run.restore(dataclasses.replace(saved, config=older))
    assert run.step == saved.step
    with pytest.raises(ValueError, match="another configuration"):
        run.restore(dataclasses.replace(saved, config=older | {"of_tomorrow": 1}))


def test_a_field_that_became_empty_is_reported_at_the_next_look(tiny_training: TinyTraining) -> None:
    run = Run(TINY_CONFIG, synthetic_dataset(TINY_DATA), torch.device("cpu"))
    run.restore(Checkpoint.load(tiny_training.checkpoint))
    run.step = 1000 * run.steps_per_epoch  # long past the first steps, from which a field may recover
    for bias, state in ((5.0, "empty"), (-5.0, "full")):
        with torch.no_grad():
            run.averaged.decoder.out.bias.fill_(bias)
        with pytest.raises(TrainingCollapsed, match=state):
            run.watch()


def test_absurd_learning_rate_collapses_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(TrainingCollapsed, match="learning_rate"):
        train(dataclasses.replace(TINY_CONFIG, learning_rate=1.0, epochs=20), TINY_DATA, tmp_path, device="cpu")


@pytest.mark.parametrize("change", [{"seed": 5}, {"epochs": 9}])
def test_another_runs_checkpoint_is_refused(tiny_training: TinyTraining, tmp_path: Path, change: dict[str, int]) -> None:
    config = dataclasses.replace(TINY_CONFIG, **change)
    with pytest.raises(ValueError, match=f"another configuration, which differs in {next(iter(change))}$"):
        train(config, TINY_DATA, tmp_path, resume_from=tiny_training.checkpoint, device="cpu")


def test_other_data_are_refused(tiny_training: TinyTraining, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="trained on"):
        train(TINY_CONFIG, dataclasses.replace(TINY_DATA, seed=4), tmp_path, resume_from=tiny_training.checkpoint, device="cpu")


def test_a_long_training_can_be_published(tiny_training: TinyTraining, tmp_path: Path) -> None:
    """Its history is no part of what a file says of itself, which must be short for strangers."""
    saved = Checkpoint.load(tiny_training.checkpoint)
    saved.state["history"] = saved.state["history"].repeat(25_000, 1)
    saved.save(tmp_path / CHECKPOINT)
    read_facts((tmp_path / CHECKPOINT).read_bytes())
