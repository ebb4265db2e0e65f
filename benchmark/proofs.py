"""``make proofs``: every order method on videos whose answers are known, beside its controls.

A method that orders frames or clips is trained on a law of made videos and asked on held-out ones, with the code and
sizes of ``method=NAME``, with as many steps on every law. What can be reached follows from the law
(``ssl_video/data/solvable_videos.py``): A and B must be learnt, C and D must stay at chance, E (palindromes) must not
pass its ceiling, and on A with shuffled labels (F) nothing can be learnt. One result file per cell lies in
``benchmark/proofs``; finished cells are skipped.

    make proofs MINUTES=60
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmark.laws import LAWS, draw_batch
from benchmark.tasks import TASKS, Task
from ssl_video.cli.parts import PROVIDED, TrainSettings, build_method
from ssl_video.cli.stand_in import attach_stand_in
from ssl_video.data.batch import ClipBatch
from ssl_video.methods.base import SSLMethod
from ssl_video.pretext import pixel_rules
from ssl_video.utils.config import build, compose_checked
from ssl_video.utils.run import environment, write_json

HERE = Path(__file__).parent
HELD_OUT = 2048
BATCH = 32
SIGMAS_ABOVE = 5.0
SIGMAS_WITHIN = 3.0
AIM = 0.95  # of the ceiling


@dataclass(frozen=True)
class Score:
    """What a method answers on held-out tuples.

    Attributes:
        accuracy: share of right answers, the mean over classes for a task that counts so.
        sigma: standard deviation of that share if the truth were chance.
        rule: accuracy of the no-learning pixel rule on the same tuples.
        tuples: how many.
    """

    accuracy: float
    sigma: float
    rule: float
    tuples: int


def main() -> int:
    """Runs what is missing until the time is up, then writes the table; returns 1 if a proof fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=480, help="stop cleanly after so many (default: 480)")
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), help="default: all")
    parser.add_argument("--laws", nargs="*", default=list(LAWS), help="default: all")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of proofs/ and PROOFS.md")
    given = parser.parse_args()
    folder: Path = given.output / "proofs"
    cells = [(task, law) for law in given.laws for task in given.tasks if law in TASKS[task].ceilings]
    missing = [cell for cell in cells if not (folder / f"{cell[0]}_{cell[1]}.json").exists()]
    print(f"{len(missing)} of {len(cells)} cells to run", flush=True)
    deadline = time.monotonic() + 60 * given.minutes
    for task, law in missing:
        if time.monotonic() >= deadline:
            break
        result = run_cell(TASKS[task], law)
        write_json(folder / f"{task}_{law}.json", {"task": task, **result})
        print(format_line(task, law, result), flush=True)
    results = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
    if results:
        (given.output / "PROOFS.md").write_text(format_table(results))
    left = sum(not (folder / f"{task}_{law}.json").exists() for task, law in missing)
    print(f"{len(missing) - left} cells done, {left} left" + ("; run it again to go on" if left else ""))
    return 1 if any(result["verdict"] == "FAILS" for result in results) else 0


def run_cell(task: Task, law: str, *, steps: int | None = None, held_out: int = HELD_OUT) -> dict[str, Any]:
    """Trains one method on one law and asks it on held-out tuples."""
    started = time.monotonic()
    steps = task.steps if steps is None else steps
    config = compose_checked("train", [*task.overrides, "seed=0"], provided=PROVIDED, settings=TrainSettings)
    method = build_method(config, num_classes=0)
    attach_stand_in(method, total_steps=steps, batches_per_epoch=20)
    sampler, transform = build(config.sampler), build(config.transform)

    def batches(part: int, count: int) -> Iterator[ClipBatch]:
        for number in range(count):
            yield draw_batch(law, sampler, transform, duration=task.duration, size=BATCH, seed=(part, number))

    train(method, batches(0, steps), shuffled_labels=law == "F")
    score = ask(method, batches(1, math.ceil(held_out / BATCH)), task)
    result: dict[str, Any] = {
        "law": law,
        "accuracy": round(score.accuracy, 4),
        "chance": round(task.chance, 4),
        "ceiling": round(task.ceilings[law], 4),
        "sigma": round(score.sigma, 4),
        "pixel_rule": round(score.rule, 4),
        "tuples": score.tuples,
        "steps": steps,
        "seconds": round(time.monotonic() - started, 1),
        "revision": environment("cpu")["git_revision"],
    }
    return result | {"verdict": verdict(result, must_learn=law in task.must_learn)}


def verdict(result: dict[str, Any], *, must_learn: bool) -> str:
    """``learnt``, ``above chance``, ``at chance``, ``below the ceiling``, or ``FAILS``.

    What must be learnt has to stand five deviations above chance, and is learnt at 95 % of its ceiling; nothing may
    stand three deviations above its ceiling, where the deviation is another one: a ceiling of 2/3 spreads more than a
    chance of 1/12.
    """
    accuracy, chance, ceiling = (result[name] for name in ("accuracy", "chance", "ceiling"))
    sigma = result["sigma"]
    if result["law"] == "F":
        # A network that was taught nothing but tells orders apart answers alike tuples alike: it guesses once per
        # order, not once per tuple.
        sigma = max(sigma, chance * math.sqrt(1 - chance))
    at_ceiling = sigma * math.sqrt(ceiling * (1 - ceiling) / (chance * (1 - chance)))
    if accuracy > ceiling + SIGMAS_WITHIN * max(sigma, at_ceiling):
        return "FAILS"
    if must_learn and ceiling > chance:
        if accuracy <= chance + SIGMAS_ABOVE * sigma:
            return "FAILS"
        return "learnt" if accuracy >= AIM * ceiling else "above chance"
    if ceiling > chance:
        return "below the ceiling"
    return "at chance" if abs(accuracy - chance) <= SIGMAS_WITHIN * sigma else "FAILS"


def train(method: SSLMethod[Any], batches: Iterator[ClipBatch], *, shuffled_labels: bool) -> None:
    """The steps of a run, without the trainer around them."""
    made = method.configure_optimizers()
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    method.train()
    with _shuffled(method) if shuffled_labels else nullcontext():
        for step, batch in enumerate(batches):
            method.trainer.global_step = step  # type: ignore[misc]
            torch.manual_seed(step)
            loss = torch.stack(list(method.losses(batch).values())).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()


@torch.no_grad()
def ask(method: Any, batches: Iterator[ClipBatch], task: Task) -> Score:
    """Accuracy on held-out tuples in evaluation mode, with the pixel rule's on the very same."""
    method.eval()
    rule: Callable[..., Tensor] = getattr(pixel_rules, task.rule)
    if rule is pixel_rules.shortest_path:
        rule = partial(rule, classes=method.classes)
    answers, rule_answers, labels = [], [], []
    for number, batch in enumerate(batches):
        torch.manual_seed(1_000_000 + number)
        with presented_by(method) as presented:
            logits, right = method.questions(batch)
        answers.append(logits.argmax(dim=1))
        labels.append(right)
        rule_answers.append(rule(presented[0].transpose(2, 3) if presented[0].ndim == 6 else presented[0]))
    truth = torch.cat(labels)
    weights = _weights(truth, task)
    accuracy = float((weights * (torch.cat(answers) == truth)).sum())
    ruled = float((weights * (torch.cat(rule_answers) == truth)).sum())
    sigma = float((weights**2).sum().sqrt()) * math.sqrt(task.chance * (1 - task.chance))
    return Score(accuracy, sigma, ruled, len(truth))


def _weights(truth: Tensor, task: Task) -> Tensor:
    """What each tuple counts: alike, or so that every class counts alike."""
    if not task.balanced:
        return torch.full((len(truth),), 1 / len(truth), dtype=torch.float64)
    counts = torch.bincount(truth).double()
    return (1 / counts / (counts > 0).sum())[truth]


@contextmanager
def _shuffled(method: Any) -> Iterator[None]:
    """Questions whose labels have nothing to do with what is shown: each batch gets those of the batch before.

    Shuffled within a batch, one label in as many as the batch has would stay where it was, and a network that sees the
    answer learns even that: odd-one-out reached 0.4 instead of 1/6 so.
    """
    asked = method.questions
    before: list[Tensor] = []

    def questions(batch: ClipBatch) -> tuple[Tensor, Tensor]:
        logits, labels = asked(batch)
        before.append(labels)
        return logits, before.pop(0) if len(before) > 1 else labels.flip(0)

    method.questions = questions
    try:
        yield
    finally:
        del method.questions


@contextmanager
def presented_by(method: Any) -> Iterator[list[Tensor]]:
    """What the method shows its network: tuples ``[Q, n, C, H, W]`` or clips ``[B, V, C, T, H, W]``."""
    seen: list[Tensor] = []
    predict = method.predict

    def recorded(presented: Tensor) -> Tensor:
        seen.append(presented)
        logits: Tensor = predict(presented)
        return logits

    method.predict = recorded
    try:
        yield seen
    finally:
        del method.predict


def format_line(task: str, law: str, result: dict[str, Any]) -> str:
    """One cell, to be read while the others run."""
    return (
        f"{task:<20} {law:<7} {result['accuracy']:.3f} (chance {result['chance']:.3f}, ceiling {result['ceiling']:.3f}"
        f", pixel rule {result['pixel_rule']:.3f}): {result['verdict']}, {result['seconds']:.0f} s"
    )


def format_table(results: list[dict[str, Any]]) -> str:
    """One line per task and law."""
    head = [
        "task",
        "law",
        "reached",
        "chance",
        "ceiling",
        "pixel rule",
        "σ",
        "tuples",
        "steps",
        "verdict",
        "s",
        "revision",
    ]
    lines = [
        "# Proofs of the order methods\n",
        "Made by `make proofs`; do not edit. Accuracy on held-out tuples in evaluation mode, trained with the code and",
        "sizes of the same `method=`, save for what `benchmark/tasks.py` sets. *learnt* is 95 % of the ceiling,",
        "*above chance* five σ, which is the deviation at chance. The pixel rule learns nothing: where it equals",
        "the network, the task tests the plumbing and says nothing of the representation. Laws:",
        "`ssl_video/data/solvable_videos.py`; F is A with shuffled labels, where a network guesses once per order and",
        "not once per tuple, so that its accuracy spreads by chance · √(1 − chance).\n",
        "| " + " | ".join(head) + " |",
        "|---" * len(head) + "|",
    ]
    results = [r | {"verdict": verdict(r, must_learn=r["law"] in TASKS[r["task"]].must_learn)} for r in results]
    for r in sorted(results, key=lambda r: (list(TASKS).index(r["task"]), list(LAWS).index(r["law"]))):
        cells = [r["task"], r["law"], f"**{r['accuracy']:.3f}**"]
        cells += [f"{r[name]:.3f}" for name in ("chance", "ceiling", "pixel_rule", "sigma")]
        cells += [str(r["tuples"]), str(r["steps"]), r["verdict"], f"{r['seconds']:.0f}"]
        lines.append("| " + " | ".join([*cells, str(r["revision"])]) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
