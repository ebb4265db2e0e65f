"""The measurements of `ssl-video bench` as aligned text."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from ssl_video.cli.bench_rounds import LOADER_PARTS, STEP_PARTS, Measured, ratio
from ssl_video.cli.bench_verdict import interval

Row = tuple[str, ...]
RULE: Row = ()


def one_table(measured: Measured) -> str:
    """Milliseconds per step by part, of one worker and of all together."""
    own = measured.circumstances
    lanes = measured.lanes
    workers = f"÷ {lanes} worker{'s' if lanes > 1 else ''}" if own.num_workers else "in the main process"
    rows: list[Row] = [("ms per step", "of one core", workers, "share"), RULE]
    total = measured.loader_ms or 1.0
    rows += [
        (label, _number(value), _number(value / lanes), _percent(value / total))
        for label, value in zip(LOADER_PARTS.values(), measured.loader.values(), strict=True)
    ]
    rows += [("loader", _number(measured.loader_ms), _number(measured.delivery_ms), "100 %"), RULE]
    step_total = sum(measured.step.values()) or 1.0
    rows += [
        (label, "", _number(value), _percent(value / step_total))
        for label, value in zip(STEP_PARTS.values(), measured.step.values(), strict=True)
    ]
    rows += [("step alone", "", _number(measured.step_ms), "100 %"), RULE]
    whole = [round_.whole for round_ in measured.rounds]
    rows.append(("end to end", "", _number(measured.whole_ms), _spread(whole)))
    rows.append(("  waiting for the loader", "", _number(measured.waited_ms), ""))
    return aligned(rows)


def two_table(first: Measured, second: Measured) -> str:
    """Both configurations beside each other, with the ratio of each row and its spread."""
    rows: list[Row] = [("ms per step", "A", "B", "A/B (95 % interval)"), RULE]
    rows += [_compared(label, first, second, "loader", part) for part, label in LOADER_PARTS.items()]
    loader = [[sum(own.loader.values()) for own in side.rounds] for side in (first, second)]
    rows += [_two("loader, of one core", *loader), RULE]
    rows += [_compared(label, first, second, "step", part) for part, label in STEP_PARTS.items()]
    rows += [_two("step alone", *([own.step_alone for own in side.rounds] for side in (first, second))), RULE]
    rows.append(_two("end to end", *([own.whole for own in side.rounds] for side in (first, second))))
    waited = [_number(side.waited_ms) for side in (first, second)]
    rows.append(("  waiting for the loader", *waited, ""))
    return aligned(rows)


def _compared(label: str, first: Measured, second: Measured, side: str, part: str) -> Row:
    values = [[getattr(own, side)[part] for own in measured.rounds] for measured in (first, second)]
    return _two(label, *values)


def _two(label: str, first: Sequence[float], second: Sequence[float]) -> Row:
    # Of parts that take next to nothing a ratio says nothing.
    found = ratio(first, second) if min(median(first), median(second)) >= 0.05 else None
    return label, _number(median(first)), _number(median(second)), interval(found)


def facts(measured: Measured) -> list[str]:
    """Rates, bytes and operations, one line each."""
    own = measured.circumstances
    per_core = own.videos / max(measured.loader_ms, 1e-6) * 1000
    lines = [
        f"a worker makes {per_core:,.1f} videos/s ({per_core * own.clips / own.videos:,.1f} clips/s) on its core; the "
        f"step takes {own.videos / max(measured.step_ms, 1e-6) * 1000:,.1f}, end to end "
        f"{own.videos / max(measured.whole_ms, 1e-6) * 1000:,.1f}"
    ]
    if measured.bytes_per_video:
        share = measured.cold_share
        how = "cold" if share > 0.9 else f"{_percent(share)} of them cold: the others could not be dropped from memory"
        lines.append(f"storage: {measured.bytes_per_video / 1e6:,.2f} MB read of each video, {how}")
    if measured.flops:
        lines.append(_operations(measured, measured.flops))
    if measured.busy_share is not None:
        lines.append(f"the GPU is busy {100 * measured.busy_share:.1f} % of the time end to end")
    if measured.failures:
        lines.append(f"{measured.failures} videos could not be read and were replaced by others")
    return lines


def _operations(measured: Measured, flops: int) -> str:
    """Of one step, and at what rate."""
    achieved = scaled(flops / measured.whole_ms * 1000)
    line = f"{scaled(flops)}FLOP a step (forward and backward): {achieved}FLOP/s end to end"
    if measured.utilization is None or not measured.matrix_flops_per_second:
        return line
    rate = scaled(measured.matrix_flops_per_second)
    return f"{line}, {100 * measured.utilization:.1f} % of the {rate}FLOP/s of a large matrix product here"


def scaled(value: float) -> str:
    """A number with one decimal and the prefix of its unit."""
    for prefix, size in (("P", 1e15), ("T", 1e12), ("G", 1e9)):
        if value >= size:
            return f"{value / size:,.1f} {prefix}"
    return f"{value / 1e6:,.1f} M"


def heading(measured: Measured) -> str:
    """What was measured, and on what."""
    own = measured.circumstances
    blocks = len(measured.rounds)
    threads = f", {own.compute_threads} thread{'s' if own.compute_threads > 1 else ''}" if own.compute_threads else ""
    return (
        f"{own.name}: a step is {own.videos} videos, {own.clips} clips; {own.device}{threads}, {own.num_workers} "
        f"workers, {own.cores} cores; medians of {blocks} block{'s' if blocks > 1 else ''}"
    )


def aligned(rows: Sequence[Row]) -> str:
    """Lines whose first column starts, and whose others end, below each other; an empty row is a rule."""
    filled = [row for row in rows if row]
    widths = [max(len(row[place]) for row in filled) for place in range(len(filled[0]))]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))]
        )
        if row
        else rule
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def _number(value: float) -> str:
    return f"{value:,.1f}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _spread(values: Sequence[float]) -> str:
    return f"{min(values):,.1f}–{max(values):,.1f}" if len(values) > 1 else ""
