"""The command line: `sdfsrn reconstruct`, `demo`, `train`, `evaluate`, `weights`."""

import json
import logging
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from sdfsrn.client import Client, ServiceError
from sdfsrn.config import WEIGHTS, ReconstructionConfig, SdfSrnConfig, SyntheticData, View, ring

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
console = Console()

Url = Annotated[str, typer.Option(envvar="SDFSRN_URL", help="address of the service")]
Out = Annotated[Path, typer.Option(help="folder for what comes out")]

# The default model: hundreds of times the recipe's shapes, still one view each. The unseen shapes have a seed of their own.
DEFAULT_DATA = SyntheticData(n_shapes=24_000, seed=1000)
DEFAULT_CONFIG = SdfSrnConfig(
    epochs=35, batch_size=50, n_rays=64, learning_rate=3e-3, bound_weight=0.1, centre_weight=0.0, checkpoint_every=2
)
UNSEEN_DATA = SyntheticData(n_shapes=300, seed=2_000_000)
DEMO_DATA = SyntheticData(n_shapes=3, seed=3_000_000)


@app.command()
def reconstruct(
    image: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="PNG, JPEG or WebP of one object")],
    mask: Annotated[Path | None, typer.Option(exists=True, help="its mask, if the picture has no alpha")] = None,
    url: Url = "http://127.0.0.1:8000",
    out: Out = Path("out"),
    views: Annotated[str, typer.Option(help="JSON, as in the HTTP contract")] = '{"count": 6, "elevation_deg": 20}',
    size: Annotated[int, typer.Option(help="pixels per side")] = 256,
    outputs: Annotated[str, typer.Option(help="comma-separated")] = "silhouettes,mesh",
    refine_steps: Annotated[int, typer.Option(help="latent steps against the picture's own mask")] = 0,
    frame: Annotated[str, typer.Option(help="object, or input: azimuth relative to the picture's own view")] = "object",
    mesh_format: Annotated[str, typer.Option(help="glb, obj, ply or stl")] = "glb",
    model: Annotated[str, typer.Option(help="name, or job:ID of a training that succeeded")] = "default",
    checkpoint: Annotated[Path | None, typer.Option(exists=True, help="reconstruct here with this file, without a service")] = None,
) -> None:
    """Silhouettes at new angles and a mesh of the object in a picture, from a running service or a checkpoint of your own."""
    fields = {"size": size, "outputs": outputs.split(","), "refine_steps": refine_steps, "frame": frame, "mesh_format": mesh_format}
    if checkpoint is not None:
        _tell(_reconstruct_here(checkpoint, image, mask, out, views, fields), out)
        return
    job = _submit_and_fetch(Client(url), image, mask, out, views=views, model=model, **fields)
    _tell(job["metrics"], out)


def _reconstruct_here(
    checkpoint: Path, image: Path, mask: Path | None, out: Path, views: str, fields: dict[str, Any]
) -> dict[str, Any]:
    from sdfsrn.images import read_picture
    from sdfsrn.reconstruct import ReconstructionFailed, Reconstructor

    try:
        asked = json.loads(views)
        is_ring = isinstance(asked, dict)
        chosen = ring(asked["count"], asked.get("elevation_deg", 20.0)) if is_ring else tuple(View(**view) for view in asked)
        config = ReconstructionConfig(views=chosen, **{**fields, "outputs": tuple(fields["outputs"])})
        picture = read_picture(image.read_bytes(), mask.read_bytes() if mask else None)
        return Reconstructor.load(checkpoint).run(picture, config, out)
    except (ValueError, TypeError, KeyError, ReconstructionFailed) as error:
        raise _refused(error) from error


@app.command()
def demo(url: Url = "http://127.0.0.1:8000", out: Out = Path("out")) -> None:
    """Draw a shape that the default model never saw, send it to a running service, fetch what comes back."""
    out.mkdir(parents=True, exist_ok=True)
    picture = out / "input.png"
    _draw_demo_picture(picture)
    console.print(f"the picture: [bold]{picture}[/], a box that the model never saw")
    job = _submit_and_fetch(
        Client(url),
        picture,
        None,
        out,
        views=[{"azimuth_deg": 30 + 60 * i, "elevation_deg": 20} for i in range(6)],
        outputs=["silhouettes", "depth", "normals", "mesh", "turntable"],
        frame="input",
    )
    _tell(job["metrics"], out)


def _submit_and_fetch(client: Client, image: Path, mask: Path | None, out: Path, **fields: Any) -> dict[str, Any]:
    try:
        job = client.reconstruct(image, mask, **fields)
        with _bars() as bars:
            bar = bars.add_task("queued", total=1.0)
            job = client.wait(job["id"], lambda seen: _show(bars, bar, seen))
        if job["status"] != "succeeded":
            raise ServiceError(f"job {job['id']} {job['status']}: {(job['error'] or {}).get('detail', 'no reason given')}")
        client.fetch(job["id"], out)
    except ServiceError as error:
        raise _refused(error) from error
    return job


def _refused(error: Exception) -> typer.Exit:
    """Say in one line what was wrong, and end with code 1."""
    console.print(f"[red]{error}[/]")
    return typer.Exit(1)


def _show(bars: Progress, bar: TaskID, job: dict[str, Any]) -> None:
    fraction = 1.0 if job["status"] == "succeeded" else job["progress"]["fraction"]
    bars.update(bar, completed=fraction, description=job["progress"]["phase"] or job["status"])


def _tell(metrics: dict[str, Any], out: Path) -> None:
    view = metrics["input_view"]
    console.print(
        f"everything is in [bold]{out}/[/]; contact_sheet.png shows all views\n"
        f"the picture {'seems to be' if view['estimated'] else 'was'} taken from azimuth {view['azimuth_deg']:.0f}, "
        f"elevation {view['elevation_deg']:.0f} degrees; IoU with its own mask {metrics['input_iou']:.3f}"
    )


def _draw_demo_picture(path: Path) -> None:
    """A box of a seed that no training uses, 256 pixels, its background transparent."""
    import torch

    from sdfsrn.data.synthetic import CAMERA_DISTANCE, make_shapes, shade
    from sdfsrn.geometry.cameras import orbit_c2w
    from sdfsrn.images import Picture

    pose = orbit_c2w(torch.tensor([35.0]), torch.tensor([25.0]), CAMERA_DISTANCE)
    light = torch.nn.functional.normalize(torch.tensor([[0.4, 0.6, 0.8]]), dim=-1)
    image, mask = shade(make_shapes(DEMO_DATA)[1:2], pose, torch.tensor([[0.85, 0.45, 0.25]]), light, 256)
    path.write_bytes(Picture(image[0].permute(1, 2, 0).numpy(), mask[0].numpy()).to_png())


@app.command()
def train(
    out: Out = Path("out/training"),
    n_shapes: Annotated[int, typer.Option(min=1, help="synthetic shapes")] = 50,
    data_seed: Annotated[int, typer.Option(min=0, help="seed of shapes, colours, light and cameras")] = 0,
    epochs: Annotated[int, typer.Option(min=1, help="passes over all pictures")] = 300,
    seed: Annotated[int, typer.Option(help="seed of the training")] = 0,
    device: Annotated[str, typer.Option(help="auto, cuda, mps or cpu")] = "auto",
) -> None:
    """Train Mini SDF-SRN here, without a service; goes on from a checkpoint of the same run in `out`."""
    report = _train(SdfSrnConfig(epochs=epochs, seed=seed), SyntheticData(n_shapes=n_shapes, seed=data_seed), out, device)
    console.print_json(json.dumps(report))


def _train(config: SdfSrnConfig, data: SyntheticData, out: Path, device: str = "auto") -> dict[str, Any]:
    from sdfsrn.training.sdf_srn import CHECKPOINT
    from sdfsrn.training.sdf_srn import train as run_training

    logging.basicConfig(level=logging.INFO)
    unfinished = out / CHECKPOINT
    with _bars() as bars:
        bar = bars.add_task("data", total=1)

        def show(phase: str, step: int, total: int, metrics: dict[str, float]) -> None:
            losses = " ".join(f"{name.removesuffix('_loss')} {value:.5f}" for name, value in metrics.items())
            bars.update(bar, description=f"{phase} {step}/{total} {losses}", completed=step, total=total)

        resume_from = unfinished if unfinished.is_file() else None
        try:
            return run_training(
                config,
                data,
                out,
                resume_from=resume_from,
                device=device,
                progress=show,
                on_checkpoint=lambda path, step: console.print(f"step {step}: {path}, {bars.tasks[0].description}"),
            )
        except ValueError as error:
            if resume_from is not None:
                console.print(f"{unfinished} may belong to another run: choose another --out, or remove it")
            raise _refused(error) from error


@app.command()
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(exists=True, help="a checkpoint.safetensors")] = WEIGHTS / "default.safetensors",
    n_shapes: Annotated[int, typer.Option(min=1, help="synthetic shapes")] = UNSEEN_DATA.n_shapes,
    data_seed: Annotated[int, typer.Option(help="their seed")] = UNSEEN_DATA.seed,
    family: Annotated[list[str] | None, typer.Option(help="families of the shapes; repeat for several")] = None,
    beside: Annotated[list[Path] | None, typer.Option(exists=True, help="another checkpoint for the table")] = None,
    out: Out = Path("out/evaluation"),
) -> None:
    """Evaluate a checkpoint as the HTTP contract defines it, beside answers that need no training, on shapes of known truth.

    By default on shapes that the default model never saw. Leaves evaluation.json and novel_views.png in `out`.
    """
    from sdfsrn.evaluation.report import compare_checkpoints

    try:
        families = {"families": tuple(family)} if family else {}
        data = SyntheticData(n_shapes=n_shapes, seed=data_seed, **families)  # type: ignore[arg-type]
        with _bars() as bars:
            bar = bars.add_task("data", total=1)
            found = compare_checkpoints(
                [checkpoint, *(beside or [])],
                data,
                out,
                lambda what, done, total: bars.update(bar, description=what, completed=done, total=total),
            )
    except ValueError as error:
        raise _refused(error) from error
    console.print(_evaluation_table(found, data))
    console.print_json(json.dumps(found[str(checkpoint)]))


def _evaluation_table(found: dict[str, dict[str, Any]], data: SyntheticData) -> Table:
    """One row per checkpoint and baseline: IoU at the six unseen angles."""
    table = Table(title=f"IoU at six unseen angles, {data.n_shapes} shapes of seed {data.seed}")
    columns = ("mean", *data.families, "worst")
    for column in ("", *columns, "3-D IoU"):
        table.add_column(column, justify="right" if column else "left")
    for name, report in found.items():
        novel, solid = report["novel_view_iou"], report.get("iou_3d")
        table.add_row(name, *(f"{novel[column]:.3f}" for column in columns), f"{solid:.3f}" if solid is not None else "")
    return table


@app.command()
def weights(out: Out = Path("out/weights")) -> None:
    """Train the default model anew, evaluate it on 300 shapes it never saw, and store both where the service finds them."""
    from sdfsrn.checkpoint import Checkpoint
    from sdfsrn.data.synthetic import families_of
    from sdfsrn.evaluation.figures import novel_views_figure
    from sdfsrn.evaluation.report import evaluate_checkpoint
    from sdfsrn.training.sdf_srn import CHECKPOINT

    _train(DEFAULT_CONFIG, DEFAULT_DATA, out)
    target = WEIGHTS / "default.safetensors"
    Checkpoint.load(out / CHECKPOINT).for_serving().save(target)
    with _bars() as bars:
        bar = bars.add_task("evaluation", total=1)
        evaluation = evaluate_checkpoint(
            Checkpoint.load(target), UNSEEN_DATA, lambda done, total: bars.update(bar, completed=done, total=total)
        )
    novel_views_figure(
        evaluation.novel_truth, evaluation.novel_prediction, families_of(UNSEEN_DATA), WEIGHTS / "default_novel_views.png"
    )
    card = _card(evaluation.report)
    (WEIGHTS / "default.json").write_text(card)
    console.print_json(card)


def _card(report: dict[str, Any]) -> str:
    """What the service says of the default model."""
    facts = {
        "trained_on": f"{DEFAULT_DATA.n_shapes} synthetic shapes of seed {DEFAULT_DATA.seed}, one view each, silhouettes only",
        "evaluated_on": f"{UNSEEN_DATA.n_shapes} synthetic shapes of seed {UNSEEN_DATA.seed}, none of them trained on",
        "evaluation": report,
    }
    return json.dumps(facts, indent=1) + "\n"


def _bars() -> Progress:
    return Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console)


if __name__ == "__main__":
    app()
