"""``make probes``: what gives an order away without any understanding of motion? Reported, not judged.

For each order method, on videos of your choice: a linear classifier of trivial statistics of the frames it presents
(mean and deviation of each colour, Laplacian energy, 8x8 blockiness, the borders' means), fitted on tuples of some
videos and asked on tuples of others, beside the no-learning pixel rule. Statistics above chance are a leak (light that
drifts, a codec, a frame around the picture): a network may read them instead of motion.

    python -m benchmark.probes dataset=folder dataset.root=/my/videos
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from benchmark.proofs import presented_by
from benchmark.tasks import TASKS
from ssl_video.cli.parts import PROVIDED, TrainSettings, build_checked, quiet
from ssl_video.data.datamodule import VideoDataModule
from ssl_video.pretext import pixel_rules
from ssl_video.utils.config import compose_checked
from ssl_video.utils.run import write_json

HERE = Path(__file__).parent
PROBED = ("shuffle_and_learn", "opn_position", "o3n", "vcop")


def main() -> int:
    """Prints one line per order task and writes ``probes/NAME.json``."""
    quiet()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tuples", type=int, default=2000, help="asked, and as many to fit (default: 2000)")
    parser.add_argument("--name", default="moving_shapes", help="of the data in the file written")
    given, overrides = parser.parse_known_args()
    rows: dict[str, Any] = {}
    for name in PROBED:
        rows[name] = probe(name, overrides, tuples=given.tuples)
        told = ", ".join(f"{key} {value:.3f}" for key, value in rows[name].items())
        print(f"{name:<18} {told}", flush=True)
    write_json(HERE / "probes" / f"{given.name}.json", rows)
    return 0


def probe(name: str, overrides: list[str], *, tuples: int) -> dict[str, float]:
    """Balanced accuracy of the statistics and of the pixel rule on tuples of held-out videos."""
    task = TASKS[name]
    method_words = [word for word in task.overrides if word.startswith("method")]
    words = [*method_words, *overrides]
    config = compose_checked("train", words, provided=PROVIDED, settings=TrainSettings)
    method, datamodule = build_checked(config)
    rows = datamodule.train_rows()
    parts = []
    for part in (rows[::2], rows[1::2]):
        datamodule.use_rows(part)
        datamodule.batch_size = min(config.batch_size, len(part))
        parts.append(_tuples(method, datamodule, tuples))
    (fitted, right), (asked, truth) = parts
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced"))
    classifier.fit(statistics(fitted).numpy(), right.numpy())
    answers = classifier.predict(statistics(asked).numpy())
    rule: Any = getattr(pixel_rules, task.rule)
    ruled = rule(asked, classes=method.classes) if task.rule == "shortest_path" else rule(asked)
    return {
        "chance": task.chance,
        "statistics": float(balanced_accuracy_score(truth, answers)),
        "pixel_rule": float(balanced_accuracy_score(truth, ruled)),
    }


def _tuples(method: Any, datamodule: VideoDataModule, number: int) -> tuple[Tensor, Tensor]:
    """What is presented, frames before all other dimensions, and the right answers."""
    seen, labels = [], []
    batches = -(-number // datamodule.batch_size)
    method.eval()
    for step, batch in enumerate(datamodule.training_loader(batches)):
        torch.manual_seed(step)
        with presented_by(method) as presented, torch.no_grad():
            labels.append(method.questions(batch)[1])
        seen.append(presented[0].transpose(2, 3) if presented[0].ndim == 6 else presented[0])
    return torch.cat(seen), torch.cat(labels)


def statistics(presented: Tensor) -> Tensor:
    """Trivial statistics of each presented frame, side by side; of a clip its first and its last frame.

    Args:
        presented: frames ``[Q, n, C, H, W]`` or clips ``[Q, n, T, C, H, W]``.

    Returns:
        ``[Q, n * 12]``, or ``[Q, n * 24]`` for clips.
    """
    frames = presented if presented.ndim == 5 else presented[:, :, [0, -1]].flatten(1, 2)
    grey = frames.mean(dim=2)
    laplacian = 4 * grey[..., 1:-1, 1:-1] - grey[..., :-2, 1:-1] - grey[..., 2:, 1:-1]
    laplacian = laplacian - grey[..., 1:-1, :-2] - grey[..., 1:-1, 2:]
    steps = grey.diff(dim=-1).abs()
    blockiness = steps[..., 7::8].mean(dim=(-2, -1)) / steps.mean(dim=(-2, -1)).clamp_min(1e-6)
    borders = [grey[..., 0, :], grey[..., -1, :], grey[..., :, 0], grey[..., :, -1]]
    values = [
        *frames.mean(dim=(-2, -1)).unbind(-1),
        *frames.std(dim=(-2, -1)).unbind(-1),
        laplacian.square().mean(dim=(-2, -1)),
        blockiness,
        *(border.mean(dim=-1) for border in borders),
    ]
    return torch.stack(values, dim=-1).flatten(1)


if __name__ == "__main__":
    raise SystemExit(main())
