"""The table of figures: targets, verdicts, results on disk, and the page that shows them."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from tests.benchmarks.machine import RESULTS, ROOT

PAGE = ROOT / "docs" / "benchmarks.md"

# name -> what must be reached on two cores that multiply bfloat16; > and < say in which direction
TARGETS = {
    "six_views_ms": "< 120", "mesh128_s": "< 1", "http_p50_ms": "< 180", "http_p95_ms": "< 350",
    "six_views_ms_busy_ratio": "<= 2.5", "mesh128_s_busy_ratio": "<= 2.5", "http_p50_ms_busy_ratio": "<= 2.5",
    "render128_ms_busy_ratio": "<= 2.5", "epoch_seconds_busy_ratio": "<= 2.5",
    "render128_memory_ratio": "> 10", "render128_time_ratio": "> 10",
    "scale_time_ratio": "< 1.15", "scale_memory_mb": "< 200",
    "recipe_seconds": "<= 15", "wrong_pixels_60s": "< 0.002",
    "served_novel_iou": ">= 0.95", "served_iou_3d": ">= 0.89", "served_margin_over_retrieval": "> 0",
    "served_view_error_deg_median": "<= 4", "served_view_error_deg_p90": "<= 15",
    "served_refined_gain": ">= 0", "served_refined_input_iou": "> 0.97", "photo_input_iou": "> 0.75",
    "shift_loss_1_px": "<= 0.003", "shift_loss_2_px": "<= 0.005",
    "familiar_called_unfamiliar": "<= 0.05", "familiarity_auroc_photographs": ">= 0.95", "familiarity_auroc_objects": ">= 0.95",
    "novel_iou_recipe": "> 0.92", "novel_iou_recipe_sphere": "> 0.97", "novel_iou_recipe_box": "> 0.89",
    "novel_iou_recipe_ellipsoid": "> 0.90", "novel_iou_symmetry": "> 0.94", "collapses": "< 1",
    "fit_heldout_iou": ">= 0.985", "fit_chair_heldout_iou": ">= 0.96", "fit_seconds": "<= 30",
    "fit_chamfer_over_hull": "< 1",
}  # fmt: skip
# what takes longer where bfloat16 is not multiplied natively, and how much longer it may take
OF_SPEED = {"six_views_ms", "mesh128_s", "http_p50_ms", "http_p95_ms", "render128_time_ratio", "recipe_seconds"}
WITHOUT_BF16 = 1.3


def target_of(name: str, bf16: bool) -> str:
    """The target of a figure, or nothing: that for bfloat16, or 1.3 times as slow."""
    target = TARGETS.get(name, "")
    if bf16 or name not in OF_SPEED:
        return target
    direction, limit = target.split()
    return f"{direction} {float(limit) * (WITHOUT_BF16 if direction[0] == '<' else 1 / WITHOUT_BF16):.4g}"


def results_file(facts: dict[str, Any], quick: bool) -> Path:
    """The JSON file for machines like this one."""
    kind = f"{facts['cpu'].split()[0].lower()}-{facts['cores']}-cores"
    return RESULTS / f"{kind}{'' if facts['bf16'] else '-float32'}{'-quick' if quick else ''}.json"


def read(path: Path) -> dict[str, Any]:
    """The results on disk: `machine` and `figures`, name -> its value, its group, and the commit it was measured at."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"machine": {}, "figures": {}}
    return found


def renewed(
    rows: dict[str, Any], group: str, values: dict[str, Any], measured_at: str, groups: Collection[str]
) -> dict[str, Any]:
    """The rows with those of one group measured anew, in the order of `groups`; what no group measures any more goes."""
    others = {name: row for name, row in rows.items() if row["group"] != group and name not in values}
    measured = {name: {"value": value, "group": group, "commit": measured_at} for name, value in values.items()}
    found = others | measured
    return {name: row for known in groups for name, row in found.items() if row["group"] == known}


def write(result: dict[str, Any], path: Path) -> None:
    """The results, and beside them the table."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    path.with_suffix(".md").write_text(table(result))


def show(result: dict[str, Any], page: Path = PAGE) -> None:
    """Renew the page's table of machines that are like this one in what counts: whether they multiply bfloat16."""
    kind = "bfloat16" if result["machine"]["bf16"] else "float32"
    begin, end = f"<!-- bench {kind} -->", f"<!-- /bench {kind} -->"
    text = page.read_text()
    if begin not in text or end not in text:
        raise ValueError(f"{page.name} must have the lines {begin} and {end}, between which the table goes")
    before, after = text.split(begin)[0], text.split(end)[1]
    page.write_text(f"{before}{begin}\n{table(result)}{end}{after}")


def table(result: dict[str, Any]) -> str:
    """Figure beside target, as Markdown."""
    bf16 = result["machine"]["bf16"]
    facts = ", ".join(f"{name} {value}" for name, value in result["machine"].items() if value is not None)
    lines = [f"Machine: {facts}.", "", "| figure | target | measured | | commit |", "|---|---|---|---|---|"]
    for name, row in result["figures"].items():
        value, target = row["value"], target_of(name, bf16)
        shown = "-" if value is None else f"{value:.4g}"
        lines.append(f"| `{name}` | {target} | {shown} | {_verdict(target, value)} | {row['commit']} |")
    return "\n".join(lines) + "\n"


def _verdict(target: str, value: float | None) -> str:
    if not target:
        return ""
    direction, number = target.split()
    limit = float(number)
    if value is None:
        return "not measured"
    met = {"<": value < limit, "<=": value <= limit, ">": value > limit, ">=": value >= limit}[direction]
    return "met" if met else "**missed**"
