"""Commands that work here, without a service: train, evaluate, and the default model's weights."""

import json
import logging
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from sdfsrn.cli.shared import Out, app, bars, console, refused, settings_in, tell_bad
from sdfsrn.config import WEIGHTS, SdfSrnConfig, SyntheticData
from sdfsrn.data.archive import BadDataset

# The default model: hundreds of times the recipe's shapes, two views each, and more of the shapes that are harder to tell. The
# unseen shapes have a seed of their own: choices are made on them, so the benchmarks report on others.
DEFAULT_DATA = SyntheticData(
    n_shapes=18_000, families=("sphere", "box", "ellipsoid", "box", "ellipsoid", "box"), views_per_shape=2, seed=1000
)
DEFAULT_CONFIG = SdfSrnConfig(
    epochs=20,
    supervision="pair",
    batch_size=50,
    n_rays=64,
    learning_rate=3e-3,
    bound_weight=0.1,
    centre_weight=0.0,
    thickness_weight=0.02,
    symmetry="mirror",
    view_weight=0.01,
    jitter=0.008,
    checkpoint_every=1,
)
UNSEEN_DATA = SyntheticData(n_shapes=300, seed=2_000_000)


@app.command()
def train(
    out: Out = Path("out/training"),
    archive: Annotated[
        Path | None, typer.Argument(exists=True, dir_okay=False, help="a zip of your own pictures, masks and cameras")
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="of the zip, leave out and name what cannot be used")] = False,
    recentre: Annotated[bool, typer.Option("--recentre", help="move objects that lie beside their world's origin there")] = False,
    n_shapes: Annotated[int, typer.Option(min=1, help="synthetic shapes")] = 50,
    data_seed: Annotated[int, typer.Option(min=0, help="seed of shapes, colours, light and cameras")] = 0,
    config: Annotated[str, typer.Option(help='JSON as in the HTTP contract: {"epochs": 100, "n_rays": 256}')] = "{}",
    device: Annotated[str, typer.Option(help="auto, cuda, mps or cpu")] = "auto",
) -> None:
    """Train Mini SDF-SRN here, without a service, on your own pictures or synthetic ones.

    Goes on from a checkpoint of the same run in `out`.
    """
    try:
        chosen = SdfSrnConfig(**settings_in(config, SdfSrnConfig))
    except ValueError as error:
        raise refused(error) from error
    data = SyntheticData(n_shapes=n_shapes, seed=data_seed) if archive is None else _captured(archive, out, skip_bad, recentre)
    console.print_json(json.dumps(_train(chosen, data, out, device)))


def _captured(archive: Path, out: Path, skip_bad: bool, recentre: bool) -> Path:
    """The file of views that an archive becomes, beside a sheet to look at."""
    from sdfsrn.data.captures import contact_sheet, read_captures
    from sdfsrn.data.dataset import save_dataset

    out.mkdir(parents=True, exist_ok=True)
    with bars() as shown:
        bar = shown.add_task("reading", total=1)

        def show(what: str, done: int, of: int) -> None:
            shown.update(bar, description=what, completed=done, total=of)

        try:
            found = read_captures(archive, show, skip_bad=skip_bad, recentre=recentre)
        except BadDataset as error:
            tell_bad(error.files)
            if error.advice:
                console.print(escape(error.advice.replace("skip_bad=true", "--skip-bad").replace("recentre=true", "--recentre")))
            raise typer.Exit(1) from error
    save_dataset(found.views, found.subjects, out / "views.safetensors")
    contact_sheet(found.views).save(out / "contact_sheet.png")
    tell_bad(found.report["skipped"])
    console.print(f"{found.report['pictures']} pictures of {found.report['objects']} objects: {out / 'contact_sheet.png'}")
    if (share := found.report["agreement"]["mean"]) is not None:
        console.print(f"the views of one object explain {share:.0%} of one another's masks")
    return out / "views.safetensors"


def _train(config: SdfSrnConfig, data: SyntheticData | Path, out: Path, device: str = "auto") -> dict[str, Any]:
    from sdfsrn.training import TrainingCollapsed
    from sdfsrn.training.sdf_srn import CHECKPOINT
    from sdfsrn.training.sdf_srn import train as run_training

    logging.basicConfig(level=logging.INFO)
    unfinished = out / CHECKPOINT
    with bars() as shown:
        bar = shown.add_task("data", total=1)

        def show(phase: str, step: int, total: int, metrics: dict[str, float]) -> None:
            told = {name.split("_")[0]: value for name, value in metrics.items() if name not in ("epoch", "step")}
            losses = " ".join(f"{name} {value:.5f}" for name, value in told.items())
            shown.update(bar, description=f"{phase} {step}/{total} {losses}", completed=step, total=total)

        resume_from = unfinished if unfinished.is_file() else None
        try:
            return run_training(
                config,
                data,
                out,
                resume_from=resume_from,
                device=device,
                progress=show,
                on_checkpoint=lambda path, step: console.print(f"step {step}: {path}, {shown.tasks[0].description}"),
            )
        except TrainingCollapsed as error:
            raise refused(error) from error
        except ValueError as error:
            if resume_from is not None:
                console.print(f"{unfinished} may belong to another run: choose another --out, or remove it")
            raise refused(error) from error


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
        with bars() as shown:
            bar = shown.add_task("data", total=1)
            found = compare_checkpoints(
                [checkpoint, *(beside or [])],
                data,
                out,
                lambda what, done, total: shown.update(bar, description=what, completed=done, total=total),
            )
    except ValueError as error:
        raise refused(error) from error
    console.print(_evaluation_table(found, data))
    console.print_json(json.dumps(found[str(checkpoint)]))


def _evaluation_table(found: dict[str, dict[str, Any]], data: SyntheticData) -> Table:
    """One row per checkpoint and baseline: IoU at the six unseen angles."""
    table = Table(title=f"IoU at six unseen angles, {data.n_shapes} shapes of seed {data.seed}")
    shown = next(iter(found.values()))["novel_view_iou"]
    columns = ("mean", *(family for family in data.families if family in shown), "worst")  # few shapes may be of few families
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
    from sdfsrn.data.dataset import synthetic_dataset
    from sdfsrn.evaluation.figures import novel_views_figure
    from sdfsrn.evaluation.report import evaluate_checkpoint
    from sdfsrn.training.sdf_srn import CHECKPOINT

    _train(DEFAULT_CONFIG, DEFAULT_DATA, out)
    target = WEIGHTS / "default.safetensors"
    Checkpoint.load(out / CHECKPOINT).for_serving().save(target)
    unseen = synthetic_dataset(UNSEEN_DATA, Checkpoint.load(target).mask_radius)
    with bars() as shown:
        bar = shown.add_task("evaluation", total=1)
        evaluation = evaluate_checkpoint(
            Checkpoint.load(target), unseen, lambda done, total: shown.update(bar, completed=done, total=total)
        )
    novel_views_figure(evaluation.novel_truth, evaluation.novel_prediction, unseen.names, WEIGHTS / "default_novel_views.png")
    card = _card(evaluation.report)
    (WEIGHTS / "default.json").write_text(card)
    (out / CHECKPOINT).unlink()  # the next call trains anew
    console.print_json(card)


def _card(report: dict[str, Any]) -> str:
    """What the service says of the default model."""
    facts = {
        "trained_on": f"{DEFAULT_DATA.n_shapes} synthetic shapes of seed {DEFAULT_DATA.seed}, "
        f"{DEFAULT_DATA.views_per_shape} views each, silhouettes only",
        "assumes": "that an object is its own mirror image in x = 0, solid, and as thin as its mask allows",
        "evaluated_on": f"{UNSEEN_DATA.n_shapes} synthetic shapes of seed {UNSEEN_DATA.seed}, none of them trained on; the "
        "benchmarks report what pictures as users send them give, on other seeds",
        "evaluation": report,
    }
    return json.dumps(facts, indent=1) + "\n"
