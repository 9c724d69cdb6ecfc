"""The artifact store in a folder: what happens where there is no room."""

import io
import resource
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service import artifacts
from service.app import create_app
from service.artifacts import Artifacts, StorageError
from service.settings import Settings
from tests.conftest import Broker

MEGABYTE = 1 << 20


@pytest.fixture
def store(tmp_path: Path) -> Artifacts:
    made = Artifacts(str(tmp_path))
    made.put("jobs/a/1/before", b"1")
    return made


def files(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


def test_a_file_that_the_disk_has_no_room_for_leaves_nothing_behind(
    store: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many may be let in at once, each while there is room; and what a worker stores is never let in."""

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() >= 2 * MEGABYTE:  # others were faster
                monkeypatch.setattr(artifacts, "SPARED", 1 << 62)
                monkeypatch.setattr(artifacts, "SPARED_SHARE", 1.0)
            return super().read(size)

    with pytest.raises(StorageError, match="nearly full") as refused:
        store.put_stream("jobs/a/1/x", Slow(bytes(40 * MEGABYTE)))
    assert refused.value.full and files(tmp_path) == ["before"]
    store.probe()  # the store works, all the same


def test_a_disk_that_takes_no_more_is_told_from_a_store_that_is_away(store: Artifacts, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(StorageError, match="cannot store jobs/a/1/x") as refused:
            store.put("jobs/a/1/x", bytes(MEGABYTE))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert refused.value.full and files(tmp_path) == ["before"]
    (tmp_path / "models").touch()
    with pytest.raises(StorageError) as away:
        store.put("models/x", b"1")
    assert not away.value.full


def test_a_full_disk_is_answered_as_what_it_is(tmp_path: Path, photo: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(data=tmp_path / "data")
    with Broker(settings), TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        monkeypatch.setattr(artifacts, "_LOOKED_AHEAD", 1 << 62)  # a picture is let in and then has no room
        (settings.data / "artifacts").mkdir()
        answer = client.post("/v1/reconstructions", files={"image": photo})
    assert answer.status_code == 503 and "no room" in answer.json()["detail"] and answer.headers["retry-after"] == "60"
