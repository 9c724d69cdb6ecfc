"""Commands that ask a service: reconstruct, demo, submit, watch, fetch."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from sdfsrn.cli.shared import Out, app, bars, console, refused, tell
from sdfsrn.client import Client, Event, Job, ServiceError, cause
from sdfsrn.config import ReconstructionConfig, SyntheticData, View, ring

Url = Annotated[str, typer.Option(envvar="SDFSRN_URL", help="address of the service")]
Key = Annotated[str | None, typer.Option(envvar="SDFSRN_KEY", help="your key, if the service asks for one")]
JobId = Annotated[str, typer.Argument(help="a job's id")]

DEMO_DATA = SyntheticData(n_shapes=3, seed=3_000_000)


@app.command()
def reconstruct(
    image: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="PNG, JPEG or WebP of one object")],
    mask: Annotated[Path | None, typer.Option(exists=True, help="its mask, if the picture has no alpha")] = None,
    url: Url = "http://127.0.0.1:8000",
    key: Key = None,
    out: Out = Path("out"),
    views: Annotated[str, typer.Option(help="JSON, as in the HTTP contract")] = '{"count": 6, "elevation_deg": 20}',
    size: Annotated[int, typer.Option(help="pixels per side")] = 256,
    outputs: Annotated[str, typer.Option(help="comma-separated")] = "silhouettes,mesh",
    refine_steps: Annotated[
        int, typer.Option(help="at most so many steps of latent and unknown view against the picture's own mask")
    ] = 0,
    frame: Annotated[str, typer.Option(help="object, or input: azimuth relative to the picture's own view")] = "object",
    mesh_format: Annotated[str, typer.Option(help="glb, obj, ply or stl")] = "glb",
    background: Annotated[
        str, typer.Option(help="how the object is found without mask and alpha: auto, plain, segment or none")
    ] = "auto",
    model: Annotated[str, typer.Option(help="name, or job:ID of a training that succeeded")] = "default",
    checkpoint: Annotated[Path | None, typer.Option(exists=True, help="reconstruct here with this file, without a service")] = None,
) -> None:
    """Silhouettes at new angles and a mesh of the object in a picture, from a running service or a checkpoint of your own."""
    fields: dict[str, Any] = {
        "size": size,
        "outputs": outputs.split(","),
        "refine_steps": refine_steps,
        "frame": frame,
        "mesh_format": mesh_format,
        "background": background,
    }
    if checkpoint is not None:
        tell(_reconstruct_here(checkpoint, image, mask, out, views, fields), out)
        return
    try:
        with _client(url, key) as client:
            job = _fetched(client, client.reconstruct(image, mask, views=views, model=model, **fields), out)
    except (ServiceError, OSError) as error:
        raise refused(error) from error
    tell(job.metrics, out)


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
        picture = read_picture(image.read_bytes(), mask.read_bytes() if mask else None, background=config.background)
        return Reconstructor.load(checkpoint).run(picture, config, out)
    except (ValueError, TypeError, KeyError, ReconstructionFailed) as error:
        raise refused(error) from error


@app.command()
def demo(url: Url = "http://127.0.0.1:8000", key: Key = None, out: Out = Path("out")) -> None:
    """Draw a shape that the default model never saw, send it to a running service, fetch what comes back."""
    out.mkdir(parents=True, exist_ok=True)
    picture = out / "input.png"
    _draw_demo_picture(picture)
    console.print(f"input:       [bold]{escape(str(picture))}[/], a box that the model never saw", soft_wrap=True)
    try:
        with _client(url, key) as client:
            job = client.reconstruct(
                picture,
                views=[{"azimuth_deg": 30 + 60 * i, "elevation_deg": 20} for i in range(6)],
                outputs=["silhouettes", "depth", "normals", "mesh", "turntable"],
                frame="input",
            )
            job = _fetched(client, job, out)
    except (ServiceError, OSError) as error:
        raise refused(error) from error
    tell(job.metrics, out)
    console.print("next:        make up keeps the service running; docs/guide.md goes on from there")


@app.command()
def submit(
    file: Annotated[
        Path | None, typer.Argument(exists=True, dir_okay=False, help="a picture to reconstruct, or a zip: a data set")
    ] = None,
    training: Annotated[str | None, typer.Option(help="or a training: its JSON, {} is the published recipe")] = None,
    field: Annotated[list[str] | None, typer.Option(help="name=value, as in the HTTP contract; repeat for several")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="of a zip, leave out and name what cannot be used")] = False,
    url: Url = "http://127.0.0.1:8000",
    key: Key = None,
) -> None:
    """Send a picture, a data set or a training, print the job's id and come back at once."""
    try:
        body = _training(training)
        if (file is None) == (body is None):
            raise ValueError("give either a file or --training JSON")
        fields = _fields(field or [])
        if fields and file is None:
            raise ValueError("--field is for pictures and data sets; a training has its fields in its JSON")
        if skip_bad and not (file and _is_archive(file)):
            raise ValueError("--skip-bad is for data sets alone: give a zip, or leave it out")
        with _client(url, key) as client:
            if file is None:
                job = client.train(**(body or {}))
            elif _is_archive(file):
                job = client.upload_dataset(file, **fields | ({"skip_bad": True} if skip_bad else {}))
            else:
                job = client.reconstruct(file, **fields)
    except (ServiceError, OSError, ValueError) as error:
        raise refused(error) from error
    typer.echo(job.id)


def _training(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        body = json.loads(text)
    except ValueError as error:
        raise ValueError(f"--training is no JSON: {error}") from error
    if not isinstance(body, dict):
        raise ValueError("--training must be a JSON object; {} is the published recipe")
    _refuse_arguments(set(body), "--training", "a training")
    return body


def _fields(pairs: list[str]) -> dict[str, Any]:
    if wrong := [pair for pair in pairs if "=" not in pair]:
        raise ValueError(f"--field {wrong[0]}: expected name=value, such as size=128")
    fields = dict(pair.split("=", 1) for pair in pairs)
    _refuse_arguments(set(fields), "--field", "the form")
    return fields


def _refuse_arguments(names: set[str], option: str, of: str) -> None:
    """Raise ValueError for names that are arguments of the client's methods and no fields of what is sent."""
    if found := {"self", "image", "mask", "archive", "idempotency_key"} & names:
        raise ValueError(f"{option} {min(found)}: this is no field of {of}")


def _is_archive(file: Path) -> bool:
    return file.suffix.lower() == ".zip"


def _client(url: str, key: str | None) -> Client:
    """A client that does not keep a person waiting for long."""
    return Client(url, key, patience_s=30)


@app.command()
def watch(job_id: JobId, url: Url = "http://127.0.0.1:8000", key: Key = None) -> None:
    """Follow a job until it has ended. The exit code is 0 if it succeeded, and 1 if not."""
    try:
        with _client(url, key) as client:
            _succeeded(_watched(client, _found(client, job_id, url)))
    except ServiceError as error:
        raise refused(error) from error


@app.command()
def fetch(job_id: JobId, url: Url = "http://127.0.0.1:8000", key: Key = None, out: Out = Path("out")) -> None:
    """Write everything that a job made into a folder. The exit code is 1 if it has made nothing."""
    try:
        with _client(url, key) as client:
            for path in client.fetch(_found(client, job_id, url).id, out):
                console.print(str(path), markup=False, highlight=False, soft_wrap=True)
    except (ServiceError, OSError) as error:
        raise refused(error) from error


def _found(client: Client, job_id: str, url: str) -> Job:
    try:
        return client.job(job_id)
    except ServiceError as error:
        if error.status == 404:
            raise ServiceError(f"there is no job {job_id} at {url}, or it is not yours", 404) from error
        raise


def _fetched(client: Client, job: Job, out: Path) -> Job:
    ended = _succeeded(_watched(client, job))
    client.fetch(job.id, out)
    return ended


def _watched(client: Client, job: Job) -> Job:
    with bars() as shown:
        bar = shown.add_task(job.status, total=1.0)

        def show(event: Event) -> None:
            if event.kind == "progress":
                shown.update(bar, description=event.data["phase"], completed=event.data["fraction"])
            elif event.kind == "status":
                shown.update(bar, description=event.data["status"], completed=1.0 if event.data["status"] == "succeeded" else None)

        return client.wait(job.id, show)


def _succeeded(job: Job) -> Job:
    if job.status != "succeeded":
        raise ServiceError(f"job {job.id} {cause(job)}")
    return job


def _draw_demo_picture(path: Path) -> None:
    """A box of a seed that no training uses, 256 pixels, its background transparent."""
    import torch

    from sdfsrn.data.synthetic import Scenes, make_shapes

    light = torch.nn.functional.normalize(torch.tensor([[0.4, 0.6, 0.8]]), dim=-1)
    box = make_shapes(DEMO_DATA)[1:2]
    scene = Scenes(box, torch.tensor([[0.85, 0.45, 0.25]]), light, torch.tensor([35.0]), torch.tensor([25.0]))
    path.write_bytes(scene.photographs(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), 256)[0].to_png())
