"""What the benchmark runs: one cell per data set, method and seed, and how long each trains."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ssl_video.utils.conf_path import conf_dir

# Equal steps for all methods on a data set; the numbers fit eight hours of two cores for all of them.
STEPS = {"moving_shapes": 200, "interactions": 100, "wagon": 30}
SEEDS = {"moving_shapes": (0, 1, 2), "interactions": (0, 1, 2), "wagon": (0,)}
# A semi-supervised method takes a part of its videos with labels: 12 beside 36 without, where the others take 24. It is
# given the embedded labels of appearance: a few frames at random times hardly show a motion.
OVERRIDES = {
    ("moving_shapes", "tcl"): ["batch_size=12", "label_fraction=0.25", "dataset.label=appearance"],
    ("interactions", "tcl"): ["batch_size=4", "label_fraction=0.25"],
    ("wagon", "tcl"): ["batch_size=12", "label_fraction=0.25"],
}
LABELS = {"moving_shapes": ("motion", "appearance"), "interactions": ("label",), "wagon": ("label",)}


@dataclass(frozen=True)
class Cell:
    """One pre-training and its measurement.

    Attributes:
        dataset: name of the data set in the tables.
        method: config name of the method.
        seed: of everything.
        steps: optimizer steps of its pre-training.
    """

    dataset: str
    method: str
    seed: int
    steps: int

    @property
    def name(self) -> str:
        """``<dataset>/<method>_<seed>``: the path of its result."""
        return f"{self.dataset}/{self.method}_{self.seed}"


def all_methods() -> list[str]:
    """Every method that has a YAML, in alphabetical order."""
    return sorted(file.stem for file in (conf_dir() / "method").glob("*.yaml"))


def all_cells(datasets: list[str], methods: list[str], *, steps: int | None = None) -> list[Cell]:
    """The cells in the order in which they run: every method once before any method's second seed."""
    return [
        Cell(dataset, method, seed, steps or STEPS[dataset])
        for seed in range(3)
        for dataset in datasets
        for method in methods
        if seed in SEEDS[dataset]
    ]


def data_overrides(dataset: str, root: Path | None) -> list[str]:
    """How a data set is named on the command line; the folders of real videos are the user's."""
    if dataset == "moving_shapes":
        return ["dataset=moving_shapes"]
    overrides = ["dataset=folder", f"dataset.root={root}", f"dataset.labels={root}/labels.csv"]
    return [*overrides, "dataset.test_groups=[6,7,8,9,10]"] if dataset == "interactions" else overrides
