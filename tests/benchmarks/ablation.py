"""`python -m tests.benchmarks.ablation`: each lever of the recipe on and off, three data seeds, unseen angles with spread.

The seeds are those that levers are chosen on; the figures of the README come from others. Writes results/ablation.md.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from sdfsrn.config import SdfSrnConfig
from sdfsrn.training.sdf_srn import Run
from tests.benchmarks.machine import RESULTS, commit, machine
from tests.benchmarks.plain import AdamRun, Float32Run
from tests.benchmarks.recipes import Variant, train_all

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


class LargeLatents(Run):
    """Latents that differ much from the first step on."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        with torch.no_grad():
            for layer in (self.model.decoder.latent_in, self.model.decoder.latent_skip):
                layer.weight *= 10


# what -> (configuration, training); the first is what all others differ from
LEVERS: dict[str, tuple[dict[str, Any], Callable[..., Run]]] = {
    "the recipe": ({}, Run),
    "mirror plane assumed": ({"symmetry": "mirror"}, Run),
    "Adam alone, no Muon": ({}, AdamRun),
    "not told that objects are centred": ({"centre_weight": 0.0}, Run),
    "no distance-transform bound": ({"bound_weight": 0.0}, Run),
    "the thinnest shapes asked for": ({"thickness_weight": 0.05}, Run),
    "no Eikonal term": ({"eikonal_weight": 0.0}, Run),
    "rays through any pixel, not near outlines": ({"outline_share": 0.0}, Run),
    "one temperature throughout": ({"temperature_start": SdfSrnConfig().temperature}, Run),
    "first latent weights ten times as large": ({}, LargeLatents),
    "the last weights, not averaged ones": ({}, LastWeights),
    "Muon without weight decay": ({}, WithoutDecay),
    "search and encoder in float32": ({}, Float32Run),
}


def main() -> None:
    """Train all, print and store the table."""
    variants = [Variant(name, seed, config, run=run) for name, (config, run) in LEVERS.items() for seed in SEEDS]
    reports = train_all(variants)
    columns = ("mean", "sphere", "box", "ellipsoid")
    lines = [f"| lever | {' | '.join(columns)} | 3-D IoU | wrong pixels |", "|---|" + "---|" * (len(columns) + 2)]
    for name in LEVERS:
        own = [report for variant, report in zip(variants, reports, strict=True) if variant.name == name]
        cells = [_spread([report["novel_view_iou"][column] if report else 0.0 for report in own]) for column in columns]
        cells.append(_spread([report["iou_3d"] if report else 0.0 for report in own]))
        cells.append(_spread([report["wrong_pixels"] if report else 1.0 for report in own], 4))
        lost = f" ({own.count(None)} collapsed)" if None in own else ""
        lines.append(f"| {name}{lost} | {' | '.join(cells)} |")
    head = f"Commit {commit()}, {machine()['cpu']}. IoU at six unseen angles; mean and half the range of data seeds {SEEDS}.\n\n"
    table = head + "\n".join(lines) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "ablation.md").write_text(table)
    print(table)


def _spread(values: list[float], digits: int = 3) -> str:
    return f"{np.mean(values):.{digits}f} ± {np.ptp(values) / 2:.{digits}f}"


if __name__ == "__main__":
    main()
