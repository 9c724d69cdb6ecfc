"""The bench's own bookkeeping: targets, verdicts, commits of rows, the page, and neighbours that come and go."""

import os
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.benchmarks.machine import alone_and_busy, busy_neighbours
from tests.benchmarks.table import read, renewed, results_file, show, table, target_of, write


def result(bf16: bool = True, **values: float | None) -> dict[str, Any]:
    rows = {name: {"value": value, "group": "some", "commit": "abc"} for name, value in values.items()}
    return {"machine": {"cpu": "Some CPU", "cores": 2, "bf16": bf16}, "figures": rows}


def test_targets_of_speed_are_laxer_without_bfloat16_and_others_are_not() -> None:
    assert target_of("six_views_ms", True) == "< 120" and target_of("six_views_ms", False) == "< 156"
    assert target_of("render128_time_ratio", False) == "> 7.692"
    assert target_of("novel_iou_recipe", False) == target_of("novel_iou_recipe", True)
    assert target_of("nothing_known", False) == ""


@pytest.mark.parametrize(
    ("value", "verdict"), [(15.0, "met"), (15.1, "**missed**"), (None, "not measured")], ids=["met", "missed", "none"]
)
def test_each_row_has_its_verdict_and_its_commit(value: float | None, verdict: str) -> None:
    row = table(result(recipe_seconds=value)).splitlines()[-1]
    assert row.split(" | ")[1] == "<= 15" and row.endswith(f" {verdict} | abc |")


def test_what_is_written_is_read_and_machines_without_bfloat16_have_a_file_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "results" / "some.json"
    assert read(path)["figures"] == {}
    write(result(mesh128_s=0.5), path)
    assert read(path)["figures"] == {"mesh128_s": {"value": 0.5, "group": "some", "commit": "abc"}}
    assert "`mesh128_s`" in path.with_suffix(".md").read_text()
    names = {results_file(result(bf16)["machine"], quick).name for bf16 in (True, False) for quick in (True, False)}
    assert len(names) == 4


def test_a_group_measured_anew_replaces_its_rows_and_what_nothing_measures_goes() -> None:
    rows = {
        "last": {"value": 1, "group": "second", "commit": "old"},
        "kept": {"value": 2, "group": "first", "commit": "old"},
        "of_the_past": {"value": 3, "group": "second", "commit": "old"},
        "of_no_group": {"value": 4, "group": "gone", "commit": "old"},
    }
    found = renewed(rows, "second", {"last": 5}, "new", ("first", "second"))
    assert list(found) == ["kept", "last"]
    assert found["kept"] == rows["kept"] and found["last"] == {"value": 5, "group": "second", "commit": "new"}


def test_the_page_gets_the_table_of_its_kind_and_keeps_the_rest(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    kinds = ("bfloat16", "float32")
    page.write_text("before\n" + "".join(f"<!-- bench {kind} -->\nold\n<!-- /bench {kind} -->\nafter\n" for kind in kinds))
    show(result(False, mesh128_s=0.5), page)
    text = page.read_text()
    assert text.startswith("before\n<!-- bench bfloat16 -->\nold\n") and text.count("old") == 1 and text.count("after") == 2
    assert "`mesh128_s`" in text.split("<!-- bench float32 -->")[1]
    page.write_text("no place for a table")
    with pytest.raises(ValueError, match="must have the lines"):
        show(result(), page)


def test_neighbours_are_busy_while_it_lasts_and_gone_after_it() -> None:
    with busy_neighbours():
        neighbours = [child for child in psutil.Process().children() if child.cmdline()[-1:] == ["tests.benchmarks.neighbour"]]
        assert len(neighbours) == os.cpu_count()
        used = [child.cpu_times().user for child in neighbours]
        time.sleep(1)
        assert all(child.cpu_times().user > before for child, before in zip(neighbours, used, strict=True)), "they are at work"
    assert not any(child.is_running() for child in neighbours)


def test_a_time_is_measured_alone_and_beside_neighbours() -> None:
    times = iter((2.0, 5.0))
    assert alone_and_busy("some_ms", lambda: next(times)) == {"some_ms": 2.0, "some_ms_busy_ratio": 2.5}
