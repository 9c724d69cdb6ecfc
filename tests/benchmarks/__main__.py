"""`python -m tests.benchmarks [--quick] [--only GROUP ...]`: measure, write results/MACHINE.json and .md, print the table.

A measurement that is not quick also renews the table of docs/benchmarks.md. With `--only` the rows of these groups are
renewed and the others stay, but for those that no group measures any more; each row says at which commit it was measured.
"""

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

import torch

from tests.benchmarks import fits, latency, quality, speed
from tests.benchmarks.machine import commit, machine
from tests.benchmarks.table import read, renewed, results_file, show, table, write


def main() -> None:
    """Measure what was asked and say what came out."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="minutes: fewer repeats, no training to the end")
    parser.add_argument("--only", nargs="+", metavar="GROUP", default=(), help="the groups to measure; the other rows stay")
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    measures = groups(options.quick)
    unknown = set(options.only) - set(measures)
    if unknown:
        parser.error(f"no group is called {', '.join(sorted(unknown))}; there are {', '.join(measures)}")
    facts, at = machine(), commit()
    path = results_file(facts, options.quick)
    result = read(path)
    result["machine"] = facts
    for name, measure in measures.items():
        if options.only and name not in options.only:
            continue
        start = time.monotonic()
        result["figures"] = renewed(result["figures"], name, measure(), at, measures)
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
        write(result, path)  # each time: what breaks off loses nothing
    print(table(result))
    print(path)
    if not options.quick:
        show(result)


def groups(quick: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """What can be measured by itself, by name; the quick measurement has fewer."""
    found: dict[str, Callable[[], dict[str, Any]]] = {
        "pictures": lambda: speed.pictures(10 if quick else 30),
        "render128": lambda: speed.render128(1 if quick else 5),
        "scale": lambda: speed.scale(30 if quick else 200),
        "latency": lambda: latency.latency(20 if quick else 100),
        "step": lambda: speed.step(10 if quick else 50),
        "served": lambda: quality.served_quality(*((15, quality.TEST_SEEDS[:1]) if quick else (100,))),
    }
    if quick:
        return found
    return found | {
        "recipe": speed.recipe,
        "refined": lambda: quality.refined_quality(60),
        "shifts": lambda: quality.shift_loss(30),
        "familiarity": lambda: quality.familiarity_quality(200),
        "photos": quality.photo_quality,
        "recipe_quality": quality.recipe_quality,
        "fits": fits.fit_quality,
    }


if __name__ == "__main__":
    main()
