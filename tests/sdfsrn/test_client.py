"""The client against the real service: the same things waiting and awaiting, and what happens when things go wrong."""

import asyncio
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sdfsrn.cli import app
from sdfsrn.client import AsyncClient, Client, Event, ServiceError
from tests.conftest import SMALL_TRAINING, Stack


@pytest.fixture
def url(stack: Stack) -> str:
    return str(stack.client.base_url)


@pytest.fixture
def picture(photo: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    path.write_bytes(photo)
    return path


def test_submit_wait_and_fetch(url: str, picture: Path, tmp_path: Path) -> None:
    with Client(url) as client:
        seen: list[Event] = []
        sent = client.reconstruct(picture, size=32, views={"count": 1}, outputs=["silhouettes"], idempotency_key="c1")
        job = client.wait(sent.id, seen.append)
        assert job.status == "succeeded" and job.ended and 0 <= job.metrics["input_iou"] <= 1
        assert seen[-1].kind == "end" and {"status", "progress"} <= {event.kind for event in seen}
        assert client.reconstruct(picture, size=32, views={"count": 1}, outputs=["silhouettes"], idempotency_key="c1").id == job.id
        names = {path.name for path in client.fetch(job.id, tmp_path / "out")}
        made = {"contact_sheet.png", "mask.png", "result.json", "silhouette_000.png"}
        assert names == made == {p.name for p in (tmp_path / "out").iterdir()}
        assert job.id in {each.id for each in client.jobs(type="reconstruction", limit=2)}
        client.delete(job.id)
        with pytest.raises(ServiceError, match="no such job") as refused:
            client.job(job.id)
        assert refused.value.status == 404


def test_the_same_awaited(url: str, picture: Path, tmp_path: Path) -> None:
    async def use() -> set[str]:
        async with AsyncClient(url) as client:
            jobs = await asyncio.gather(*(client.reconstruct(picture, size=32, views={"count": 1}) for _ in range(3)))
            ended = await asyncio.gather(*(client.wait(job.id) for job in jobs))
            assert {job.status for job in ended} == {"succeeded"}
            assert {job.id async for job in client.jobs(type="reconstruction")} >= {job.id for job in jobs}
            return {path.name for path in await client.fetch(jobs[0].id, tmp_path / "out")}

    assert "result.json" in asyncio.run(use())


def test_pausing_a_training(url: str) -> None:
    with Client(url) as client:
        job = client.train(**{**SMALL_TRAINING, "config": {**SMALL_TRAINING["config"], "epochs": 400}})
        assert client.pause(job.id).status in ("pausing", "paused")
        for event in client.events(job.id):
            if event.data.get("status") == "paused":
                break
        assert client.resume(job.id).status in ("queued", "running")
        assert client.cancel(job.id).status in ("cancelling", "cancelled")
        assert client.wait(job.id).status == "cancelled"


def test_refusals_say_what_was_wrong(url: str, picture: Path) -> None:
    with Client(url) as client, pytest.raises(ServiceError, match="size") as refused:
        client.reconstruct(picture, size=3)
    assert refused.value.status == 422 and "size" in refused.value.fields
    with Client("http://127.0.0.1:9") as client, pytest.raises(ServiceError, match="no service answers"):
        client.jobs().__next__()


def test_a_damaged_download_is_not_left_behind(url: str, picture: Path, tmp_path: Path, stack: Stack) -> None:
    with Client(url) as client:
        job = client.wait(client.reconstruct(picture, size=32, views={"count": 1}).id)
        file = next((stack.data / "artifacts" / "jobs" / job.id).rglob("silhouette_000.png"))
        file.write_bytes(bytes(len(file.read_bytes())))
        with pytest.raises(ServiceError, match="damaged"):
            client.fetch(job.id, tmp_path / "out")
        assert not [path for path in (tmp_path / "out").iterdir() if "silhouette" in path.name]


def test_the_command_line_submits_watches_and_fetches(url: str, picture: Path, tmp_path: Path) -> None:
    def run(*words: str) -> str:
        result = CliRunner().invoke(app, [*words, "--url", url])
        assert result.exit_code == 0, result.output
        return result.output

    job_id = run("submit", str(picture), "--field", "size=32").strip()
    run("watch", job_id)
    assert "result.json" in run("fetch", job_id, "--out", str(tmp_path / "got"))
    assert (tmp_path / "got" / "result.json").is_file()
    training = run("submit", "--training", '{"dataset": {"n_shapes": 2}, "config": {"epochs": 1}}').strip()
    assert CliRunner().invoke(app, ["watch", training, "--url", url]).exit_code in (0, 1)
    assert CliRunner().invoke(app, ["submit", "--url", url]).exit_code == 1
