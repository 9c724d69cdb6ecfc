"""What the commands share: the application, the screen, how a refusal is said."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="3-D shape from single pictures: reconstruct, submit, watch and fetch ask a running service; train, fit, "
    "evaluate and weights work here.",
)
console = Console()

_VERDICTS = {
    "familiar": "the model knows such objects",
    "unfamiliar": "the model does not know such objects: expect a closed shape with this outline, and no more",
}

Out = Annotated[Path, typer.Option(help="folder for what comes out")]


def refused(error: Exception) -> typer.Exit:
    """Say what was wrong, where results are not looked for, and end with code 1."""
    Console(stderr=True).print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
    return typer.Exit(1)


def settings_in(text: str, kind: type) -> dict[str, Any]:
    """The settings of a dataclass that `--config` gives as JSON. Raises ValueError for what is none."""
    known = [spec.name for spec in dataclasses.fields(kind)]
    try:
        given = json.loads(text)
    except ValueError as error:
        raise ValueError(f"--config is no JSON: {error}") from error
    if not isinstance(given, dict) or set(given) - set(known):
        raise ValueError(f"--config must be a JSON object of some of {', '.join(known)}, got {text}")
    return given


def tell_bad(files: dict[str, str]) -> None:
    """Each file that cannot be used, and why."""
    for name, reason in files.items():
        console.print(f"[red]{escape(name)}[/]: {escape(reason)}")


def bars() -> Progress:
    """Progress bars with a description and the time so far."""
    return Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console)


def tell(metrics: dict[str, Any], out: Path) -> None:
    """What was found in a picture, and where it lies."""
    view = metrics["input_view"]
    lines = [
        f"result:      [bold]{escape(str(out))}/[/]; contact_sheet.png shows all views, result.json has the figures",
        f"input view:  azimuth {view['azimuth_deg']:.0f}, elevation {view['elevation_deg']:.0f} degrees"
        + (" (estimated)" if view["estimated"] else ""),
        f"input IoU:   {metrics['input_iou']:.3f} (1 = the shape's outline is the picture's)",
    ]
    if metrics.get("familiarity") is not None:
        lines.append(f"familiarity: {metrics['familiarity']:.2f}, {_VERDICTS[metrics['verdict']]}")
    lines += [f"[yellow]warning:[/]     {escape(warning['message'])}" for warning in metrics.get("warnings", ())]
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False)
