"""`python -m tests.benchmarks [--quick]`: measure, write results/<date>-<machine>.json and .md, print the table.

A whole measurement also renews the table of the README.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks import latency, quality, speed
from tests.benchmarks.machine import RESULTS, ROOT, commit, machine

BEGIN, END = "<!-- bench -->", "<!-- /bench -->"

# name -> what must be reached on two cores; > and < say in which direction
TARGETS = {
    "recipe_seconds": "< 20", "recipe_speedup": "> 30", "wrong_pixels_60s": "< 0.002",
    "render128_memory_ratio": "> 10", "render128_time_ratio": "> 10",
    "six_views_ms": "< 120", "http_p50_ms": "< 180", "http_p95_ms": "< 350", "mesh128_s": "< 1",
    "scale_time_ratio": "< 1.15", "scale_memory_mb": "< 200",
    "novel_iou_recipe": "> 0.92", "novel_iou_recipe_sphere": "> 0.97", "novel_iou_recipe_box": "> 0.89",
    "novel_iou_recipe_ellipsoid": "> 0.90", "novel_iou_symmetry": "> 0.94", "collapses": "< 1",
    "novel_iou_default": "> 0.93", "iou_3d_default": "> 0.88",
    "refined_input_iou": "> 0.97", "refined_novel_iou": "> unrefined_novel_iou", "photo_input_iou": "> 0.75",
}  # fmt: skip


def main() -> None:
    """Measure what was asked and say what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under two minutes: fewer repeats, no training to the end")
    parser.add_argument("--only", nargs="*", default=(), help="names of the groups to run")
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    groups: dict[str, Callable[[], dict[str, Any]]] = {
        "pictures": lambda: speed.pictures(10 if options.quick else 30),
        "render128": lambda: speed.render128(1 if options.quick else 5),
        "scale": lambda: speed.scale(30 if options.quick else 200),
        "latency": lambda: latency.latency(20 if options.quick else 100),
        "recipe": lambda: speed.recipe(options.quick),
        "served": lambda: quality.served_quality(*((15, quality.TEST_SEEDS[:1]) if options.quick else (300,))),
    }
    if not options.quick:
        groups |= {
            "refined": lambda: quality.refined_quality(300),
            "shifts": lambda: quality.shift_loss(100),
            "familiarity": lambda: quality.familiarity_quality(300),
            "photos": quality.photo_quality,
            "recipe_quality": quality.recipe_quality,
        }
    result: dict[str, Any] = {"machine": machine(), "commit": commit(), "quick": options.quick, "figures": {}}
    path = result_path(result)
    for name, measure in groups.items():
        if options.only and name not in options.only:
            continue
        start = time.monotonic()
        result["figures"] |= measure()
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
        if not options.only:  # a part must not pass for the whole
            write(result, path)
    print(table(result))
    if not options.only:
        print(path)
        if not options.quick:
            show(result)


def result_path(result: dict[str, Any]) -> Path:
    """The JSON file of a measurement that begins now."""
    stamp = datetime.now(UTC).date().isoformat()
    cores, cpu = result["machine"]["cores"], result["machine"]["cpu"].split()[0].lower()
    return RESULTS / f"{stamp}-{cpu}-{cores}-cores{'-quick' if result['quick'] else ''}.json"


def write(result: dict[str, Any], path: Path) -> None:
    """Both files, of what is known so far: what breaks off loses nothing."""
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    path.with_suffix(".md").write_text(table(result))


def show(result: dict[str, Any]) -> None:
    """Renew the README's table."""
    readme = ROOT / "README.md"
    before, after = readme.read_text().split(BEGIN)[0], readme.read_text().split(END)[1]
    readme.write_text(f"{before}{BEGIN}\n{table(result)}{END}{after}")


def table(result: dict[str, Any]) -> str:
    """Figure beside target, as Markdown."""
    facts = ", ".join(f"{name} {value}" for name, value in result["machine"].items() if value is not None)
    lines = [f"Commit {result['commit']}; {facts}.", "", "| figure | target | measured | |", "|---|---|---|---|"]
    for name, value in result["figures"].items():
        target = TARGETS.get(name, "")
        shown = "-" if value is None else f"{value:.4g}"
        lines.append(f"| `{name}` | {target} | {shown} | {_verdict(target, value, result['figures'])} |")
    return "\n".join(lines) + "\n"


def _verdict(target: str, value: float | None, figures: dict[str, float]) -> str:
    if not target:
        return ""
    if value is None:
        return "not measured"
    direction, named = target.split()
    limit = figures[named] if named in figures else float(named)
    met = value < limit if direction == "<" else value > limit
    return "met" if met else "**missed**"


if __name__ == "__main__":
    main()
