"""What a client may send by mistake or on purpose gets a 4xx that names the field, and leaves nothing behind."""

import io
import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.conftest import Stack


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has a few bytes of zeros for it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    data = zlib.compress(bytes(100_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.fixture(autouse=True)
def nothing_left(stack: Stack) -> Iterator[None]:
    def traces() -> tuple[set[str], set[str]]:
        jobs = {job.id for job in stack.jobs().newest_first("", None, None, lambda job: True, 1_000)[0]}
        return jobs, {str(path) for path in (stack.data / "artifacts").rglob("*")}

    before = traces()
    yield
    assert traces() == before


def assert_problem(answer: httpx.Response, field: str, status: tuple[int, ...] = (422,)) -> None:
    assert answer.status_code in status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert {"type", "title", "status", "detail"} <= set(problem)
    assert problem["errors"][0]["field"] == field, problem


@pytest.mark.parametrize(
    ("image", "status"),
    [
        (b"", 422),
        (b"not a picture at all", 422),
        (png_header(64, 64)[:60], 422),
        (png(Image.effect_noise((200, 200), 50).convert("RGBA"))[:3000], 422),
        (png_header(60_000, 60_000), 422),
        (png_header(8200, 5000), 422),
        (png(Image.new("RGBA", (64, 64))), 422),
        (png(Image.new("RGB", (64, 64), "white")), 422),
        (b"\x89PNG" + bytes(20_000_001), 413),
    ],
    ids=["empty", "text", "header only", "truncated", "bomb", "41 megapixels", "transparent", "blank", "20 MB"],
)
def test_image(client: httpx.Client, image: bytes, status: int) -> None:
    assert_problem(client.post("/v1/reconstructions", files={"image": ("a.png", image)}), "image", (status,))


def mask(draw: str) -> bytes:
    """Masks that are none, of the size of the photo."""
    ramp = Image.linear_gradient("L").resize((96, 96))
    labels = ramp.point(lambda level: level // 64)
    return png({"black": Image.new("L", (96, 96)), "white": Image.new("L", (96, 96), 255), "ramp": ramp, "labels": labels}[draw])


@pytest.mark.parametrize("draw", ["black", "white", "ramp", "labels"])
def test_mask(client: httpx.Client, photo: bytes, draw: str) -> None:
    answer = client.post("/v1/reconstructions", files={"image": photo, "mask": mask(draw)})
    assert_problem(answer, "mask")
    message = answer.json()["detail"]
    assert message.startswith("the mask ") and "255 for the object" in message and "picture" not in message


def test_a_strip_that_is_too_thin_once_it_is_reduced(client: httpx.Client) -> None:
    strip = Image.new("RGBA", (4000, 20))
    strip.paste((200, 90, 40, 255), (100, 4, 2000, 16))
    answer = client.post("/v1/reconstructions", files={"image": png(strip)})
    assert_problem(answer, "image")
    assert "reduced to 1024 x 5" in answer.json()["detail"]


@pytest.mark.parametrize(("background", "said"), [("none", "background=none"), ("plain", "background=segment"), ("auto", "send a")])
def test_noise_without_a_mask(client: httpx.Client, background: str, said: str) -> None:
    noise = png(Image.merge("RGB", [Image.effect_noise((128, 128), 90) for _ in range(3)]))
    answer = client.post("/v1/reconstructions", files={"image": noise}, data={"background": background})
    assert_problem(answer, "image")
    assert said in answer.json()["detail"]


def test_no_image(client: httpx.Client) -> None:
    assert_problem(client.post("/v1/reconstructions", files={"x": (None, "1")}), "x")
    assert_problem(client.post("/v1/reconstructions", files={"size": (None, "64")}), "image")
    assert_problem(client.post("/v1/reconstructions", data={"size": "64"}), "content-type", (415,))


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("views", "sideways", "views"),
        ("views", '{"count": 10000}', "views"),
        ("views", json.dumps([{"azimuth_deg": i % 360, "elevation_deg": 0} for i in range(4000)]), "views"),
        ("views", '[{"azimuth_deg": NaN, "elevation_deg": 0}]', "views"),
        ("views", '[{"azimuth_deg": 1e999, "elevation_deg": 0}]', "views.0.azimuth_deg"),
        ("views", '[{"azimuth_deg": 0, "elevation_deg": 91}]', "views.0.elevation_deg"),
        ("views", "[" * 50_000, "views"),
        ("views", "[]", "views"),
        ("input_view", "7", "input_view"),
        ("model", "no-such-model", "model"),
        ("model", "job:nothing", "model"),
        ("size", "31", "size"),
        ("size", "sixty", "size"),
        ("size", "1" * 5000, "size"),
        ("outputs", "hologram", "outputs.0"),
        ("mesh_format", "dwg", "mesh_format"),
        ("background", "green", "background"),
        ("refine_steps", "501", "refine_steps"),
        ("metadata", '{"a": {"b": 1}}', "metadata.a"),
        ("metadata", '{"a": "\\ud800"}', "metadata.a"),
        ("colour", "red", "colour"),
        ("colour", "[{}" + ",{}" * 10_000 + "]", "colour"),
        ("views", '{"count": 9000000000}', "views"),
    ],
)
def test_field(client: httpx.Client, photo: bytes, name: str, value: str, field: str) -> None:
    answer = client.post("/v1/reconstructions", files={"image": photo}, data={name: value})
    assert_problem(answer, field)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("input_view", "7", "must be a JSON object"),
        ("metadata", "7", "must be a JSON object"),
        ("views", "7", "must be a JSON list"),
        ("model", "no-such-model", "no model 'no-such-model'"),
        ("model", "default@7", "no version or alias '7'; it has: 1"),
        ("size", "sixty", "not valid JSON, as numbers, lists"),
    ],
)
def test_what_was_expected_is_told_in_terms_of_json(client: httpx.Client, photo: bytes, name: str, value: str, said: str) -> None:
    answer = client.post("/v1/reconstructions", files={"image": photo}, data={name: value})
    assert said in answer.json()["errors"][0]["message"]


def test_a_misspelt_field_is_called_so_and_what_the_summary_leaves_out_is_counted(client: httpx.Client) -> None:
    config = {"epoch": 6, "epochs": 0, "n_rays": 1, "n_samples": 1, "seed": -1}
    answer = client.post("/v1/trainings", json={"config": config}).json()
    assert {"field": "config.epoch", "message": "there is no such field; /docs tells which there are"} in answer["errors"]
    assert len(answer["errors"]) == 5 and answer["detail"].endswith("; and 2 more, in `errors`")


def test_pixels_in_all(client: httpx.Client, photo: bytes) -> None:
    form = {"size": "1024", "views": '{"count": 96}'}
    assert_problem(client.post("/v1/reconstructions", files={"image": photo}, data=form), "views")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"config": {"epochs": -1}}, "config.epochs"),
        ({"config": {"epochs": True}}, "config.epochs"),
        ({"config": {"learning_rate": "fast"}}, "config.learning_rate"),
        ({"config": {"colour": 1}}, "config.colour"),
        ({"colour": 1}, "colour"),
        ({"method": "magic"}, "method"),
        ({"dataset": {"n_shapes": 0}}, "dataset.n_shapes"),
        ({"dataset": {"families": []}}, "dataset.families"),
        ({"dataset": {"n_shapes": 100_000, "views_per_shape": 64}}, "dataset.n_shapes"),
        ({"config": {"n_rays": 4096, "n_samples": 512, "batch_size": 1024}}, "config.n_rays"),
        ({"config": {"supervision": "pair"}}, "config.supervision"),
        ({"dataset": {"type": "uploaded"}}, "dataset.id"),
        ({"from_checkpoint": {}}, "from_checkpoint"),
        ({"from_checkpoint": {"job": "x"}}, "from_checkpoint.job"),
        ({"from_checkpoint": {"model": "x"}}, "from_checkpoint.model"),
    ],
)
def test_training(client: httpx.Client, body: dict[str, Any], field: str) -> None:
    assert_problem(client.post("/v1/trainings", json=body), field)


def test_not_a_number_in_json(client: httpx.Client) -> None:
    body = b'{"config": {"learning_rate": NaN}}'
    answer = client.post("/v1/trainings", content=body, headers={"Content-Type": "application/json"})
    assert_problem(answer, "config.learning_rate")


@pytest.mark.parametrize("path", ["/v1/reconstructions", "/v1/trainings"])
def test_body_over_the_limit_without_its_length(client: httpx.Client, path: str) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'

    def pieces() -> Iterator[bytes]:
        yield head if path.endswith("reconstructions") else b'"'
        for _ in range(43):
            yield b"a" * 1_000_000

    kind = "multipart/form-data; boundary=x" if path.endswith("reconstructions") else "application/json"
    try:
        answer = client.post(path, content=pieces(), headers={"Content-Type": kind})
    except httpx.WriteError:  # the server answered and closed while we still sent
        assert client.get("/healthz").is_success
        return
    assert_problem(answer, "body", (413,))


@pytest.mark.parametrize("time", ["yesterday", "2026-01-01T00:00:00", ""])
def test_a_time_needs_its_offset(client: httpx.Client, time: str) -> None:
    assert_problem(client.get("/v1/jobs", params={"created_after": time}), "created_after")


def test_times_before_all_others_are_times(client: httpx.Client) -> None:
    everything = client.get("/v1/jobs", params={"created_after": "0001-01-01T00:00:00Z"})
    assert everything.status_code == 200, everything.text
    assert client.get("/v1/jobs", params={"created_after": "9999-12-31T23:59:59Z"}).json()["items"] == []


def test_hosts_and_origins(client: httpx.Client) -> None:
    assert client.get("/healthz", headers={"Host": "example.org"}).status_code == 403
    assert client.post("/v1/trainings", json={}, headers={"Origin": "https://example.org"}).status_code == 403
    assert client.get("/healthz", headers={"Origin": "http://localhost:1234"}).status_code == 200


@pytest.mark.parametrize("path", ["/v1/jobs/nothing", "/v1/jobs/%00", "/v1/jobs/" + "0" * 26, "/v1/models/x", "/nowhere"])
def test_unknown(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 404
    assert client.get(path).headers["content-type"] == "application/problem+json"
