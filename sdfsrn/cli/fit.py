"""The command that fits one object, without a service."""

from pathlib import Path
from typing import Annotated, Any

import typer

from sdfsrn.cli.shared import Out, app, bars, console, refused, settings_in, tell_bad
from sdfsrn.config import FitConfig, View
from sdfsrn.data.archive import BadDataset


@app.command()
def fit(
    archive: Annotated[Path, typer.Argument(exists=True, help="a zip or a folder of one object's pictures, masks and cameras")],
    out: Out = Path("out/fit"),
    subject: Annotated[str | None, typer.Option(help="of an archive with several objects, the folder of the one to fit")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="leave out and name views that cannot be used")] = False,
    representation: Annotated[str | None, typer.Option(help="neural or spheres; one view alone needs spheres")] = None,
    steps: Annotated[int | None, typer.Option(help="optimiser steps")] = None,
    seconds: Annotated[float | None, typer.Option(help="most seconds that the steps may take")] = None,
    hold_out: Annotated[int | None, typer.Option(help="every so-many-th view is left out and measured; 0: none is")] = None,
    mesh_format: Annotated[str | None, typer.Option(help="glb, obj, ply or stl")] = None,
    config: Annotated[str, typer.Option(help='JSON of further settings: {"hidden_dim": 256, "seed": 1}')] = "{}",
) -> None:
    """Fit one object to the silhouettes of its views: mesh, pictures, and how well views that were left out agree."""
    from sdfsrn.fits import FitFailed
    from sdfsrn.fits import fit as run

    given = {"representation": representation, "steps": steps, "seconds": seconds, "hold_out": hold_out, "mesh_format": mesh_format}
    try:
        chosen = _configured(config, {name: value for name, value in given.items() if value is not None})
        with bars() as shown:
            bar = shown.add_task("reading", total=1)
            found = run(
                archive,
                out,
                chosen,
                lambda phase, done, total: shown.update(bar, description=phase, completed=done, total=total),
                subject=subject,
                skip_bad=skip_bad,
            )
    except BadDataset as error:
        tell_bad(error.files)
        raise typer.Exit(1) from error
    except (ValueError, FitFailed) as error:
        raise refused(error) from error
    _tell(found, out)


def _configured(text: str, given: dict[str, Any]) -> FitConfig:
    further = settings_in(text, FitConfig)
    if "views" in further:
        further["views"] = tuple(View(**view) for view in further["views"])
    return FitConfig(**further, **given)


def _tell(found: dict[str, Any], out: Path) -> None:
    held, hull = found["held_out_iou"], found["hull"]["held_out_iou"]
    lines = [f"mesh:   {out / found['mesh']['file']}, after {found['seconds_to_mesh']:.1f} s; result.json has all figures"]
    trained = f"IoU:    {found['trained_iou']['mean']:.3f} at the views that taught"
    if held:
        lines.append(f"IoU:    {held['mean']:.3f} at views left out, {held['min']:.3f} at worst; visual hull {hull['mean']:.3f}")
        lines.append(trained)
    else:
        lines.append(f"{trained}; no view was left out, so nothing is known of others")
    for name, reason in found["skipped"].items():
        lines.append(f"skipped {name}: {reason}")
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


@app.command()
def experiment(
    name: Annotated[str, typer.Argument(help="spheres_growing, spheres_shrinking, one_silhouette or several_silhouettes")],
    mesh: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="whose silhouettes to fit; else three balls")
    ] = None,
    out: Out = Path("out/experiments"),
) -> None:
    """An experiment with differentiable rendering: leaves the film of its optimisation, NAME.gif."""
    from sdfsrn.experiments import EXPERIMENTS

    if name not in EXPERIMENTS:
        raise refused(ValueError(f"no experiment is called {name!r:.40}; there are {', '.join(EXPERIMENTS)}"))
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.gif"
    with bars() as shown:
        bar = shown.add_task(name, total=1)
        try:
            iou = EXPERIMENTS[name](mesh, path, lambda done, total: shown.update(bar, completed=done, total=total))
        except ValueError as error:
            raise refused(error) from error
    console.print(f"{path}: IoU {iou:.3f} at the view shown", soft_wrap=True, highlight=False, markup=False)
