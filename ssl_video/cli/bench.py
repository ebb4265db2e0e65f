"""``ssl-video bench``: where does a training step's time go, and what would make it shorter?

The parts are measured one by one, on one core, then a step on batches that are there, then real steps with the real
loader. These follow each other in blocks; of two configurations each block of one is taken beside one of the other, so
that a machine that is busy for a while slows both.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import torch

from ssl_video.cli.bench_picture import draw
from ssl_video.cli.bench_rounds import Measured, Round
from ssl_video.cli.bench_subject import Subject, available_cores, compose
from ssl_video.cli.bench_table import facts, heading, one_table, two_table
from ssl_video.cli.bench_verdict import comparison, duration, expectation, verdict, would_gain_by_preparing
from ssl_video.cli.launch import DONE, INTERRUPTED, REFUSED, TERMINATED
from ssl_video.cli.parts import quiet
from ssl_video.utils.errors import InputError, Terminated
from ssl_video.utils.files import write_atomically

BLOCKS = {1: 3, 2: 6}  # by the number of configurations
PHASES = 4  # loader, step, and the real loader twice: its warm-up and its steps


@dataclass(frozen=True)
class Extent:
    """How much is measured.

    Attributes:
        blocks: of each configuration.
        steps: in each block, at most.
        seconds: for all blocks together.
    """

    blocks: int
    steps: int
    seconds: float

    def check(self) -> None:
        """Refuses what measures nothing.

        Raises:
            InputError: names the option and the rule.
        """
        for name, value in (("blocks", self.blocks), ("steps", self.steps)):
            if value < 1:
                raise InputError(f"--{name}={value} must be at least 1.")
        if not self.seconds > 0:
            raise InputError(f"--seconds={self.seconds} must be above 0.")


def main(argv: Sequence[str]) -> int:
    """Measures, prints and draws; returns 0, 2 where the input is refused, 130 or 143 where it is interrupted."""
    quiet()
    words, after = list(argv), None
    if "--" in words:
        place = words.index("--")
        words, after = words[:place], words[place + 1 :]
    given, overrides = _parser().parse_known_args(words)
    try:
        sides = _sides(overrides, against=given.against, after=after)
        extent = Extent(BLOCKS[len(sides)] if given.blocks is None else given.blocks, given.steps, given.seconds)
        extent.check()
        measured, notes = measure(sides, extent)
        report(measured, notes, output=given.output or Path("bench.png"))
    except InputError as fault:
        print(f"ssl-video bench: {fault}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        print("Interrupted; nothing was written.", file=sys.stderr)
        return INTERRUPTED
    except Terminated:
        print("Terminated; nothing was written.", file=sys.stderr)
        return TERMINATED
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ssl-video bench",
        usage="ssl-video bench [options] [override …] [-- override … of a second configuration]",
        description="Where does a training step's time go, and what would make it shorter?",
        epilog="Overrides are those of train.py. The run itself is not started, and its folder is not made.",
    )
    parser.add_argument("--against", help="compare with the same configuration changed so, e.g. 'reader=pyav seed=1'")
    parser.add_argument("--blocks", type=int, help="blocks of measurements (default: 3; 6 when two are compared)")
    parser.add_argument("--steps", type=int, default=10, help="most steps in a block (default: 10)")
    parser.add_argument(
        "--seconds", type=float, default=45, help="for all blocks; what is slow gets fewer steps (default: 45)"
    )
    parser.add_argument("-o", "--output", type=Path, help="the picture; a .json lies beside it (default: bench.png)")
    return parser


def _sides(overrides: list[str], *, against: str | None, after: list[str] | None) -> list[list[str]]:
    """The overrides of each configuration."""
    if against is not None and after is not None:
        raise InputError("--against and -- both name a second configuration; leave one of them out.")
    sides = [overrides]
    if after is not None:
        sides.append(after)
    if against is not None:
        try:
            changes = shlex.split(against)
        except ValueError as fault:
            raise InputError(f"--against={against!r} cannot be read ({fault}); see to its quotes.") from None
        if not changes:
            raise InputError("--against='' changes nothing; name overrides, e.g. --against 'reader=pyav'.")
        changed = {_key(word) for word in changes}
        sides.append([word for word in overrides if _key(word) not in changed] + changes)
    wrong = [word for side in sides for word in side if "=" not in word]
    if wrong:
        raise InputError(f"{wrong[0]!r} is neither an option nor an override key=value; see ssl-video bench --help.")
    return sides


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def measure(sides: Sequence[Sequence[str]], extent: Extent) -> tuple[list[Measured], list[str]]:
    """Builds every configuration, then measures them in turns; with what the reader should know of the machine.

    Raises:
        InputError: what the runs themselves would refuse.
    """
    notes = machine_notes()
    threads = torch.get_num_threads()
    configs = [compose(overrides) for overrides in sides]  # all faults before anything heavy
    names = _names(sides)
    subjects = []
    for number, config in enumerate(configs):
        torch.set_num_threads(threads)  # building the one before may have changed it
        subjects.append(Subject(config, name=names[number], start=number / len(sides)))
    measurements = [_Measurement(subject, extent, shares=len(sides)) for subject in subjects]
    try:
        notes += _measure_blocks(measurements, extent)
        return [measurement.result() for measurement in measurements], notes
    finally:
        for subject in subjects:
            subject.close()


def _measure_blocks(measurements: Sequence[_Measurement], extent: Extent) -> list[str]:
    """Measures all in turns, block after block; says so where the time is over before."""
    started = block_started = time.monotonic()
    for block in range(1, extent.blocks + 1):
        _say(f"block {block} of {extent.blocks}")
        in_turn = measurements if block % 2 else measurements[::-1]
        for phase in (_Measurement.loader, _Measurement.step, _Measurement.whole):
            for measurement in in_turn:
                phase(measurement)
        now = time.monotonic()
        # Two are not compared by a single block, however long it took.
        is_late = now - started + (now - block_started) > extent.seconds and block >= len(measurements)
        if is_late and block < extent.blocks:
            return [f"stopped after {block} of {extent.blocks} blocks, as --seconds={extent.seconds:g} are over"]
        block_started = now
    return []


def _names(sides: Sequence[Sequence[str]]) -> list[str]:
    """Of each configuration: its overrides, of the second only what is other than in the first."""
    first = " ".join(sides[0]) or "the default configuration"
    if len(sides) == 1:
        return [first]
    added = [word for word in sides[1] if word not in sides[0]]
    left_out = [word for word in sides[0] if _key(word) not in map(_key, sides[1])]
    changes = [" ".join(added)] * bool(added) + [f"without {' '.join(left_out)}"] * bool(left_out)
    return [f"A: {first}", f"B: as A, but {', '.join(changes)}" if changes else "B: the same as A"]


class _Measurement:
    """The blocks of one configuration."""

    def __init__(self, subject: Subject, extent: Extent, *, shares: int) -> None:
        self.subject = subject
        self.steps = extent.steps
        self.seconds = extent.seconds / (extent.blocks * shares * PHASES)
        self.loaders: list[dict[str, float]] = []
        self.steps_alone: list[tuple[dict[str, float], float]] = []
        self.wholes: list[tuple[float, float]] = []
        self.bytes_per_video = 0.0
        self.cold_shares: list[float] = []
        self.failures = 0

    def loader(self) -> None:
        times = self.subject.measure_loader(steps=self.steps, seconds=self.seconds)
        self.loaders.append(times.parts)
        self.bytes_per_video = times.bytes_per_video
        self.cold_shares.append(times.cold_share)
        self.failures += times.failures

    def step(self) -> None:
        times = self.subject.measure_step(steps=self.steps, seconds=self.seconds)
        self.steps_alone.append((times.parts, times.whole))

    def whole(self) -> None:
        times = self.subject.measure_whole(steps=self.steps, seconds=self.seconds)
        self.wholes.append((times.whole, times.waited))

    def result(self) -> Measured:
        """All blocks, with what is measured once."""
        rounds = [
            Round(loader, step, alone, whole, waited)
            for loader, (step, alone), (whole, waited) in zip(self.loaders, self.steps_alone, self.wholes, strict=True)
        ]
        subject = self.subject
        measured = Measured(
            subject.circumstances(),
            rounds,
            bytes_per_video=self.bytes_per_video,
            cold_share=mean(self.cold_shares),
            flops=subject.count_flops(),
            matrix_flops_per_second=subject.matrix_rate(),
            busy_share=subject.busy_share(steps=self.steps, seconds=self.seconds),
            failures=self.failures,
        )
        if not would_gain_by_preparing(measured):
            return measured
        _say("re-encoding a few videos, to see what preparing them would give")
        return replace(measured, prepared=subject.prepared())


def machine_notes() -> list[str]:
    """What the reader should know of the machine before trusting milliseconds."""
    try:
        busy = os.getloadavg()[0]
    except (AttributeError, OSError):
        return []
    cores = available_cores()
    if busy < 0.5 * cores:
        return []
    return [
        f"others keep this machine busy (load {busy:.1f} on {cores} cores): all milliseconds are too many, and those "
        "of several processes most of all"
    ]


def report(measured: Sequence[Measured], notes: Sequence[str], *, output: Path) -> None:
    """Prints tables and verdicts, and writes picture and JSON.

    Raises:
        InputError: a file cannot be written.
    """
    verdicts = [verdict(own) for own in measured]
    if len(measured) == 2:
        print("\n".join([*map(heading, measured), "", two_table(*measured), ""]))
    for own, told in zip(measured, verdicts, strict=True):
        lines = [] if len(measured) == 2 else [heading(own), "", one_table(own), ""]
        lines += [own.circumstances.name] if len(measured) == 2 else []
        lines += [told.sentence, f"  {told.arithmetic}", expectation(own), duration(own), *facts(own), ""]
        print("\n".join(lines))
    if len(measured) == 2:
        print(comparison(*measured) + "\n")
    if notes:
        print("\n".join([*notes, ""]))
    content = {
        "configurations": [
            {**own.as_json(), "verdict": told.sentence, "bound": told.kind, "arithmetic": told.arithmetic}
            for own, told in zip(measured, verdicts, strict=True)
        ],
        "comparison": comparison(*measured) if len(measured) == 2 else None,
        "notes": list(notes),
    }
    picture, table = output.with_suffix(".png"), output.with_suffix(".json")
    try:
        write_atomically(picture, lambda path: draw(measured, verdicts=[own.sentence for own in verdicts], path=path))
        write_atomically(table, lambda path: _write_json(path, content))
    except OSError as fault:
        raise InputError(f"--output={output} cannot be written ({fault.strerror}); name another file.") from fault
    print(f"written: {picture}, {table}")


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def _say(line: str) -> None:
    print(f"bench: {line}", file=sys.stderr, flush=True)
