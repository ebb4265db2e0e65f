"""What the measurements of `ssl-video bench` mean, in sentences, with the arithmetic beside them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ssl_video.cli.bench_rounds import Measured, Prepared, Ratio, ratio

# Below this the slower side is not named: the parts add up to no more than about this.
TOLERANCE = 1.05
# Worth a remedy in its own right.
MUCH = 0.2


@dataclass(frozen=True)
class Verdict:
    """Where the time goes.

    Attributes:
        kind: what the step waits for: ``decode``, ``storage``, ``transform``, ``collate``, ``compute``, ``transfer``,
            ``augmentation``, ``overhead``, ``core`` (workers and network are each fast enough, but not on the same
            cores) or ``serial`` (no workers).
        sentence: for the reader.
        arithmetic: how it follows from the table.
    """

    kind: str
    sentence: str
    arithmetic: str


def largest_loader_part(measured: Measured) -> str:
    """The part of the loader that costs most."""
    loader = measured.loader
    return max(loader, key=lambda part: loader[part])


def verdict(measured: Measured) -> Verdict:
    """What bounds a step, by the largest of the times that the parts allow."""
    if measured.circumstances.num_workers == 0:
        return _serial(measured)
    if measured.delivery_ms > measured.step_ms:
        return _loader_bound(measured)
    if measured.shared_ms > TOLERANCE * measured.step_ms:
        return _core_bound(measured)
    return _step_bound(measured)


def would_gain_by_preparing(measured: Measured) -> bool:
    """Whether cheaper decoding would make the run faster."""
    kind = verdict(measured).kind
    share = measured.loader["decode"] / (measured.loader_ms or 1.0)
    return kind in ("decode", "storage") or (kind in ("core", "serial", "transform") and share > MUCH)


def _loader_bound(measured: Measured) -> Verdict:
    part = largest_loader_part(measured)
    own = measured.circumstances
    needed = workers_needed(measured.loader_ms, measured.step_ms)
    on_cores = f" on {own.cores} cores" if needed + own.compute_threads > own.cores else ""
    if on_cores and own.compute_threads:
        on_cores += " that the network computes on too"
    sentence = f"{part}-bound: {needed:,} workers needed, you have {own.num_workers}{on_cores}"
    return Verdict(part, sentence + _remedy(measured, part), _delivery(measured))


def workers_needed(loader_ms: float, step_ms: float) -> int:
    """Workers, each with a core, that deliver as fast as steps are taken."""
    # A hair less than a whole number is rounding.
    return max(1, math.ceil(loader_ms / max(step_ms, 1e-6) - 1e-6))


def _remedy(measured: Measured, part: str) -> str:
    if part == "decode":
        return _by_preparing(measured)
    if part == "storage":
        rate = measured.bytes_per_video * measured.circumstances.videos / max(measured.loader["storage"], 1e-6) / 1000
        return f"; the files come at {rate:,.1f} MB/s: copy them to a faster disk{_by_preparing(measured)}"
    if (
        part == "transform"
        and not measured.circumstances.compute_threads
        and measured.circumstances.augment_on != "device"
    ):
        return "; or augment_on=device"
    return "; or a cheaper transform=" if part == "transform" else ""


def _by_preparing(measured: Measured) -> str:
    prepared = measured.prepared
    if prepared is None or prepared.speed_up < 1.2:
        return ""
    left = workers_needed(_loader_ms_when_prepared(measured, prepared), measured.step_ms)
    workers = f"{left:,} worker{'s' if left > 1 else ''}" + (" then" if left > 1 else " is enough then")
    basis = f"measured on {prepared.num_videos} videos" if prepared.num_videos else "estimated"
    return f"; or prepare at {prepared.short_side} px: about {factor(prepared.speed_up)} faster ({basis}), {workers}"


def _loader_ms_when_prepared(measured: Measured, prepared: Prepared) -> float:
    decode = measured.loader["decode"]
    return measured.loader_ms - decode + decode / prepared.speed_up


def _delivery(measured: Measured) -> str:
    return (
        f"a batch costs {ms(measured.loader_ms)} of one core, ÷ {_workers(measured)} = "
        f"{ms(measured.delivery_ms)}; a step takes {ms(measured.step_ms)}; "
        f"{measured.loader_ms:,.1f} / {measured.step_ms:,.1f} = {measured.loader_ms / max(measured.step_ms, 1e-6):,.1f}"
    )


def _workers(measured: Measured) -> str:
    own, lanes = measured.circumstances, measured.lanes
    if lanes < own.num_workers:
        return f"{lanes} cores ({own.num_workers} workers share them)"
    return f"{lanes} worker{'s' if lanes > 1 else ''}"


def _core_bound(measured: Measured) -> Verdict:
    own, part = measured.circumstances, largest_loader_part(measured)
    computing = measured.step_ms * own.compute_threads
    total = measured.loader_ms + computing
    wanted = total / max(measured.step_ms, 1e-6)
    sentence = (
        f"core-bound: workers and network want {wanted:,.1f} cores at the network's pace, you have {own.cores}; "
        f"{_percent(computing / total)} of the work is the step's, {_percent(measured.loader[part] / total)} {part}"
    )
    if measured.loader[part] > MUCH * total:
        sentence += _remedy(measured, part)
    threads = f" × {own.compute_threads} threads" if own.compute_threads > 1 else ""
    arithmetic = (
        f"(a batch {ms(measured.loader_ms)} of one core + a step {ms(measured.step_ms)}{threads}) ÷ {own.cores} cores "
        f"= {ms(measured.shared_ms)}; the step alone takes {ms(measured.step_ms)}"
    )
    return Verdict("core", sentence, arithmetic)


def _serial(measured: Measured) -> Verdict:
    own = measured.circumstances
    total = measured.loader_ms + measured.step_ms
    # On the CPU the network computes on one of the cores.
    free = own.cores - min(1, own.compute_threads)
    hiding = min(workers_needed(measured.loader_ms, measured.step_ms), free)
    sentence = (
        f"serial: {_percent(measured.loader_ms / total)} of a step is loading, in the main process "
        f"(dataset.num_workers=0)"
    )
    if hiding > 0:
        sentence += f"; dataset.num_workers={hiding} would load while the network computes"
    if largest_loader_part(measured) == "decode" and measured.loader["decode"] > MUCH * total:
        prepared = measured.prepared
        if prepared is not None and prepared.speed_up >= 1.2:
            basis = f"measured on {prepared.num_videos} videos" if prepared.num_videos else "estimated"
            sentence += f"; or prepare at {prepared.short_side} px: about {factor(prepared.speed_up)} faster ({basis})"
    return Verdict(
        "serial", sentence, f"a batch {ms(measured.loader_ms)} + a step {ms(measured.step_ms)} = {ms(total)}"
    )


def _step_bound(measured: Measured) -> Verdict:
    step = measured.step
    total = sum(step.values()) or 1e-6
    groups = {
        "compute": step["forward"] + step["backward"] + step["optimizer"],
        "transfer": step["transfer"],
        "augmentation": step["finish"],
        "overhead": step["rest"],
    }
    kind = max(groups, key=lambda name: groups[name])
    share = _percent(groups[kind] / total)
    smaller = measured.circumstances.augment_on == "worker"
    told = {
        "compute": "",
        "transfer": f"copying to the device is {share} of a step"
        + ("; augment_on=device sends a quarter of the bytes" if smaller else ""),
        "augmentation": f"finishing the clips on the device is {share} of a step; augment_on=worker moves it to the "
        "workers",
        "overhead": f"{share} of a step is neither copying nor network: loop, logging, callbacks",
    }[kind]
    speed = factor(measured.step_ms / max(measured.delivery_ms, 1e-6))
    delivers = f"the loader delivers {speed} what the step takes"
    sentence = f"{kind}-bound: " + (f"{told}; {delivers}" if told else delivers)
    enough = workers_needed(measured.loader_ms, measured.step_ms)
    if enough < measured.circumstances.num_workers:
        sentence += f"; {enough} worker{'s' if enough > 1 else ''} would do"
    return Verdict(kind, sentence, _delivery(measured))


def expectation(measured: Measured) -> str:
    """How the parts hold against the whole."""
    sentence = (
        f"end to end {ms(measured.whole_ms)} a step, of which {ms(measured.waited_ms)} waiting for the loader; "
        f"the parts alone predict {ms(measured.predicted_ms)}"
    )
    share = measured.whole_ms / max(measured.predicted_ms, 1e-6)
    if share > 1.25:
        sentence += f": {factor(share)} as long, so loader and network hinder each other, or the machine was busy"
    elif share < 0.8:
        sentence += f": {factor(share)} as long, as storage was faster than when read cold, or the noise is large"
    return sentence


def duration(measured: Measured) -> str:
    """The whole run, and what that rests on."""
    own = measured.circumstances
    hours = measured.run_hours
    shown = f"{hours:,.1f} hours" if hours >= 1 else f"{hours * 60:,.1f} minutes"
    devices = (
        f"; on {own.num_devices} devices, of which one was measured: what they exchange comes on top"
        if own.num_devices > 1
        else ""
    )
    return (
        f"the whole run takes about {shown}: {own.num_steps:,} steps × {ms(measured.whole_ms)} measured end to end + "
        f"{own.startup_seconds:,.1f} s to start{devices}"
    )


def comparison(first: Measured, second: Measured) -> str:
    """Which of two configurations is faster end to end, or that it cannot be told."""
    found = ratio([own.whole for own in first.rounds], [own.whole for own in second.rounds])
    if found is None:
        return "no comparison: a block took no time"
    if found.num_pairs < 2:
        return f"B/A speed {found.value:.2f}, but one pair of blocks tells nothing of the noise: --blocks 2 or more"
    span = f"95 % interval {found.low:.2f} to {found.high:.2f} over {found.num_pairs} pairs of blocks"
    if not found.is_clear:
        return f"no difference beyond noise: A takes {found.value:.2f} times as long as B ({span})"
    if found.value > 1:
        return f"B is faster: A takes {found.value:.2f} times as long ({span})"
    return f"A is faster: it takes {found.value:.2f} of B's time ({span})"


def interval(found: Ratio | None) -> str:
    """A ratio with its spread, for a table."""
    if found is None:
        return "–"
    if math.isnan(found.low):
        return f"{found.value:.2f}"
    if found.high > 10 * found.low:
        return f"{found.value:.2f} (noise)"
    return f"{found.value:.2f} ({found.low:.2f}–{found.high:.2f})"


def factor(value: float) -> str:
    """A factor as it is spoken of: 9×, 3.1×, 0.42×."""
    if value >= 8:
        return f"{value:,.0f}×"
    return f"{value:.1f}×" if value >= 1 else f"{value:.2f}×"


def ms(value: float) -> str:
    """Milliseconds with one decimal."""
    return f"{value:,.1f} ms"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
