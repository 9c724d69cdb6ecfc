"""The documentation: its commands are run as a reader would run them, its links lead somewhere, its messages exist.

A page's blocks of `sh` and `python` are one script, run in order against a real service, in a folder with `out/input.png`,
`photo.jpg`, `mine.zip` and `views.zip`. What cannot be run has a comment before it that readers do not see,
`<!-- not run: why -->`, and stands in NOT_RUN.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image, ImageDraw

from service.settings import Settings
from tests.conftest import ROOT, Stack, shaded_ball, start_stack, stop_stack
from tests.sdfsrn.data import scene

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LANGUAGES = {"sh", "python"}  # the others are shown and not run: json, text, yaml, ...
# The first command of every block that is not run, by page.
NOT_RUN = {
    "README.md": ["make demo"],
    "docs/guide.md": [
        "make demo",
        "make up",
        "sdfsrn submit --training '{}'",
        "sdfsrn evaluate out/local/checkpoint.safetensors --n-shapes 30",
    ],
    "docs/operating.md": ["make up", "docker compose up --build --detach", "make deploy-test"],
    "docs/benchmarks.md": [
        ".venv/bin/python -m tests.benchmarks --only pictures latency",
        "SDFSRN_FAST_DTYPE=float32 make bench",
        ".venv/bin/python -m tests.benchmarks.plain",
    ],
}
# What a page's commands must have left behind, beside a job for each of their requests.
LEAVES = {"docs/http.md": ["out/python/mesh.glb", "out/shell/result.json"], "docs/pictures.md": ["out/mesh.glb"]}
ADDRESS = re.compile(r"http://(?:127\.0\.0\.1|localhost):8000")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and whether a reader's copy of it can be run."""

    language: str
    text: str
    is_run: bool


def blocks_of(page: Path) -> list[Block]:
    """All fenced blocks, in order."""
    found: list[Block] = []
    opened, language, is_marked, lines = "", "", False, []
    for line in page.read_text().splitlines():
        fence = re.match(r"(```+)(.*)", line)
        if opened and fence and fence[1] == opened and not fence[2].strip():
            found.append(Block(language, "\n".join(lines), language in LANGUAGES and not is_marked))
            opened, is_marked = "", False
        elif opened:
            lines.append(line)
        elif fence:
            opened, language, lines = fence[1], fence[2].strip(), []
        elif line.strip():
            is_marked = bool(re.fullmatch(r"<!-- not run: .+ -->", line.strip()))
    assert not opened, f"{page.name}: a block does not end"
    return found


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub names them."""
    text = re.sub(r"^(```+).*?^\1\s*$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ +(.+?)\s*$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def own_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A service for the pages: what they publish is nobody else's."""
    running = start_stack(tmp_path_factory.mktemp("docs") / "data")
    yield running
    stop_stack(running)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a reader stands: `make demo` has left a picture, the virtual environment is there, and a data set of one's own."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "input.png").write_bytes(shaded_ball(96))
    binaries = tmp_path / ".venv" / "bin"
    binaries.mkdir(parents=True)
    for name in ("python", "python3"):
        (binaries / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (binaries / "sdfsrn").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m sdfsrn.cli "$@"\n')
    # a page's curl must succeed: an error over HTTP ends the script
    (binaries / "curl").write_text(f'#!/bin/sh\nexec "{shutil.which("curl")}" --fail-with-body "$@"\n')
    for command in binaries.iterdir():
        command.chmod(0o755)
    _photograph().save(tmp_path / "photo.jpg")
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
        for i in range(4):
            archive.writestr(f"ball{i}/view.png", shaded_ball(64 + 16 * i))
            archive.writestr(f"ball{i}/transforms.json", _CAMERAS)
    scene.write(tmp_path / "views.zip", scene.nerf(cameras=scene.AROUND))
    return tmp_path


_CAMERAS = """{"camera_angle_x": 0.87, "frames": [{"file_path": "view.png",
 "transform_matrix": [[1, 0, 0, 0], [0, 0, -1, -2.5], [0, 1, 0, 0], [0, 0, 0, 1]]}]}"""


def _photograph() -> Image.Image:
    """A ball before a background of many colours."""
    coarse = np.random.default_rng(0).integers(40, 160, (16, 16, 3), dtype=np.uint8)
    photograph = Image.fromarray(coarse).resize((256, 256), Image.Resampling.BICUBIC)
    ImageDraw.Draw(photograph).ellipse((70, 80, 180, 190), fill=(250, 240, 90))
    return photograph


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", [page for page in PAGES if any(block.is_run for block in blocks_of(page))], ids=name_of)
def test_the_commands_of_a_page_work(page: Path, own_stack: Stack, folder: Path) -> None:
    url = str(own_stack.client.base_url).rstrip("/")
    parts = []
    for block in blocks_of(page):
        if block.is_run:
            text = ADDRESS.sub(url, block.text)
            parts.append(text if block.language == "sh" else f"python3 - <<'END_OF_PROGRAM'\n{text}\nEND_OF_PROGRAM")
    (folder / "page.sh").write_text("set -euxo pipefail\n" + "\n".join(parts) + "\n")
    environment = {
        **os.environ,
        "PATH": f"{folder / '.venv' / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "SDFSRN_URL": url,
        "NO_PROXY": "*",
    }
    done = subprocess.run(["bash", "page.sh"], cwd=folder, env=environment, capture_output=True, text=True, timeout=880)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert [name for name in LEAVES.get(name_of(page), []) if not (folder / name).is_file()] == []
    assert _undescribed(own_stack.client) == set()


def _undescribed(client: httpx.Client) -> set[str]:
    """Files of all jobs, and fields of their `result.json` and `evaluation.json`, that the page on formats does not name."""
    found: set[str] = set()
    for job in client.get("/v1/jobs?limit=200").json()["items"]:
        for file in client.get(job["links"]["artifacts"]).json():
            found.add(re.sub(r"\d{3}", "000", file["name"]))
            if file["name"] in ("result.json", "evaluation.json"):
                found |= client.get(file["href"]).json().keys()
    described = (ROOT / "docs" / "data-formats.md").read_text()
    return {name for name in found if f"`{name}`" not in described}


def test_the_problem_that_the_http_page_shows_is_the_answer(client: httpx.Client, photo: bytes) -> None:
    shown = [json.loads(block.text) for block in blocks_of(ROOT / "docs" / "http.md") if block.language == "json"]
    answer = client.post("/v1/reconstructions", files={"image": photo}, data={"size": "2000"})
    assert shown == [answer.json()]


def test_every_setting_is_in_the_table() -> None:
    operating = (ROOT / "docs" / "operating.md").read_text()
    assert [name for name in Settings.model_fields if f"`SDFSRN_{name.upper()}`" not in operating] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_is_not_run_is_listed(page: Path) -> None:
    blocks = blocks_of(page)
    assert all(block.language for block in blocks), "every block names its language; text, if it has none"
    left_out = [block for block in blocks if block.language in LANGUAGES and not block.is_run]
    assert [block.text.splitlines()[0].split("  #")[0].strip() for block in left_out] == NOT_RUN.get(name_of(page), [])
    outside = re.sub(r"^(```+).*?^\1\s*$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    hidden = re.findall(
        r"^ {4,}(?:\w+=\S+ )*(?:\.venv/bin/)?(?:curl|sdfsrn|make|docker|python3?|from|import) .*$", outside, re.MULTILINE
    )
    assert hidden == [], "commands stand in fenced blocks, where they are run"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    bad = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = (page.parent / path).resolve() if path else page
        is_good = file.exists() and file.is_relative_to(ROOT)
        if not is_good or (anchor and anchor not in anchors_of(file)):
            bad.append(target)
    assert not bad


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    assert [page.name for page in PAGES[1:] if page.name != "README.md" and f"({page.name})" not in index] == []


def test_the_readme_is_one_screen() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 80
    assert sum(file.stat().st_size for file in (ROOT / "docs" / "pictures").glob("*.png")) < 200_000


def test_the_messages_of_troubleshooting_are_those_of_the_program() -> None:
    titles = re.findall(r"^### `([^`]+)`$", (ROOT / "docs" / "troubleshooting.md").read_text(), flags=re.MULTILINE)
    said = "\n".join(_texts())
    unknown = [title for title in titles if not re.search(".*".join(map(re.escape, title.split("…"))), said)]
    assert len(titles) > 30 and not unknown


def _texts() -> Iterator[str]:
    """Every text of the program, parts joined, values as …; and the Makefile."""
    yield (ROOT / "Makefile").read_text()
    for folder in ("sdfsrn", "service", "worker"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value
                elif isinstance(node, ast.JoinedStr):
                    yield "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
