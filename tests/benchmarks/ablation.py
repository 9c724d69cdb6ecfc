"""`python -m tests.benchmarks.ablation`: each lever of the recipe and of the default model on and off.

How good the recipe is at unseen angles, how soon it reaches its target, and the default model at unseen angles; each table is
results/ablation-NAME.md. The seeds are those that levers are chosen on; the figures of the README come from others.
"""

import argparse
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from sdfsrn.cli.local import DEFAULT_CONFIG
from sdfsrn.config import SyntheticData
from sdfsrn.training.sdf_srn import Run
from tests.benchmarks.machine import RESULTS, commit, machine
from tests.benchmarks.plain import AdamRun, Float32Run
from tests.benchmarks.recipes import COUNTED_EPOCHS, Variant, by_name, count_all, train_all
from tests.benchmarks.target import LOOK_EVERY, TARGET

SEEDS = (100, 101, 102)


class LastWeights(Run):
    """Evaluated as the last step left it."""

    def _average(self) -> None:
        self.averaged.load_state_dict(self.model.state_dict())


class WithoutDecay(Run):
    """Muon's matrices may grow as they like."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        for group in self.optimizers[1].param_groups:
            group["weight_decay"] = 0.0


# what -> (configuration, training); the first is what all others differ from
LEVERS: dict[str, tuple[dict[str, Any], Callable[..., Run]]] = {
    "the recipe": ({}, Run),
    "mirror plane assumed": ({"symmetry": "mirror"}, Run),
    "Adam alone, no Muon": ({}, AdamRun),
    "not told that objects are centred": ({"centre_weight": 0.0}, Run),
    "no distance-transform bound": ({"bound_weight": 0.0}, Run),
    "the thinnest shapes asked for": ({"thickness_weight": 0.04}, Run),
    "no Eikonal term": ({"eikonal_weight": 0.0}, Run),
    "rays through any pixel, not near outlines": ({"outline_share": 0.0}, Run),
    "the last weights, not averaged ones": ({}, LastWeights),
    "Muon without weight decay": ({}, WithoutDecay),
    "search and encoder in float32": ({}, Float32Run),
}


# of the default model, in small: few enough shapes and passes for minutes
DEFAULT_SMALL = {**dataclasses.asdict(DEFAULT_CONFIG), "epochs": 12}
DEFAULT_SMALL_DATA = {"n_shapes": 2_500, "views_per_shape": 2}
UNSEEN = SyntheticData(n_shapes=240, seed=1_900_000)  # what its levers are chosen on
DEFAULT_LEVERS: dict[str, dict[str, Any]] = {
    "the default model, in small": {},
    "each picture taught by its own mask": {"supervision": "own"},
    "the view hardly asked for": {"view_weight": 5e-4},
    "not the thinnest shapes": {"thickness_weight": 0.0},
    "no mirror plane assumed": {"symmetry": "none"},
    "told that objects are centred": {"centre_weight": 2.0},
    "bound as heavy as the recipe's": {"bound_weight": 0.2},
}


def main() -> None:
    """Train all of one table or of each, print and store."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("table", nargs="?", choices=("recipe", "target", "default"), help="default: all three")
    only = parser.parse_args().table
    of_recipe = [Variant(name, seed, config, run=run) for name, (config, run) in LEVERS.items() for seed in SEEDS]
    if only in (None, "recipe"):
        told = f"The recipe on and off each of its levers; mean and half the range of data seeds {SEEDS}."
        _compare("recipe", told, of_recipe)
    if only in (None, "target"):
        told = (
            f"Epochs in which the recipe, on and off each of its levers, reaches silhouette loss and wrong pixels <= {TARGET} "
            f"(looked at every {LOOK_EVERY} up to {COUNTED_EPOCHS}), on data seeds {SEEDS}; one thread each."
        )
        _store("target", told, _epochs_table(of_recipe, count_all(of_recipe)))
    if only in (None, "default"):
        of_default = [
            Variant(name, SEEDS[0], DEFAULT_SMALL | lever, DEFAULT_SMALL_DATA, unseen=UNSEEN)
            for name, lever in DEFAULT_LEVERS.items()
        ]
        told = (
            f"The default model told {DEFAULT_SMALL_DATA['n_shapes']} shapes in {DEFAULT_SMALL['epochs']} passes, "
            f"data seed {SEEDS[0]}, on {UNSEEN.n_shapes} unseen shapes of seed {UNSEEN.seed}."
        )
        _compare("default", told, of_default)


def _compare(name: str, told: str, variants: list[Variant]) -> None:
    _store(name, f"IoU at six unseen angles. {told}", _table(variants, train_all(variants)))


def _store(name: str, told: str, table: str) -> None:
    text = f"Commit {commit()}, {machine()['cpu']}. {told}\n\n{table}"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"ablation-{name}.md").write_text(text)
    print(text)


def _table(variants: list[Variant], reports: list[dict[str, Any] | None]) -> str:
    columns = ("mean", "sphere", "box", "ellipsoid")
    lines = [f"| lever | {' | '.join(columns)} | 3-D IoU | wrong pixels |", "|---|" + "---|" * (len(columns) + 2)]
    for name, own in by_name(variants, reports).items():
        cells = [_spread([report["novel_view_iou"][column] if report else 0.0 for report in own]) for column in columns]
        cells.append(_spread([report["iou_3d"] if report else 0.0 for report in own]))
        cells.append(_spread([report["wrong_pixels"] if report else 1.0 for report in own], 4))
        lost = f" ({own.count(None)} collapsed)" if None in own else ""
        lines.append(f"| {name}{lost} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _epochs_table(variants: list[Variant], epochs: list[int | None]) -> str:
    lines = ["| lever | epochs |", "|---|---|"]
    for name, own in by_name(variants, epochs).items():
        lines.append(f"| {name} | {', '.join(str(count or 'more') for count in own)} |")
    return "\n".join(lines) + "\n"


def _spread(values: list[float], digits: int = 3) -> str:
    spread = f" ± {np.ptp(values) / 2:.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


if __name__ == "__main__":
    main()
