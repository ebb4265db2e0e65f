"""How a result is shown: in the terminal, and as ``table.md``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from ssl_video.cli.compare import protocol_reports

# What a scorecard's line, and a row of `ssl-video table`, show of each protocol; metrics.json has all.
SHOWN: dict[str, tuple[str, ...]] = {
    "knn": ("top1", "balanced_accuracy"),
    "linear_probe": ("top1", "balanced_accuracy"),
    "linear_probe_in_loop": ("top1", "balanced_accuracy"),
    "finetune": ("top1", "balanced_accuracy"),
    "retrieval": ("recall_at_1", "recall_at_5", "recall_at_10"),
    "low_shot": ("top1_at_1_percent", "top1_at_5_percent", "top1_at_10_percent", "top1_at_20_percent"),
    "temporal_probes": (*("drop_frozen", "drop_shuffled", "drop_reversed", "arrow_of_time", "speed", "order"),),
    "shift": ("mean_relative_drop",),
    "features": ("rankme", "effective_rank", "alignment", "uniformity"),
}


def format_report(report: Mapping[str, Any]) -> str:
    """A heading and one line per metric: the value with its 95 % interval, and each baseline's beside it.

    Of several official splits the mean, with the deviation over them.
    """
    columns = _columns(report)
    rows = [["", *columns], *([name, *cells] for name, cells in _rows(report, columns))]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(["", heading(report), *lines, *_remarks(report)])


def format_markdown(report: Mapping[str, Any]) -> str:
    """The same as a Markdown table."""
    columns = _columns(report)
    lines = [heading(report), "", f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in _rows(report, columns)]
    lines += [f"\n{remark}" for remark in _remarks(report)]
    return "\n".join(lines) + "\n"


def heading(report: Mapping[str, Any]) -> str:
    """What was measured on what, in one line."""
    classes = len(report.get("videos_per_class", {})) or next(
        (len(own["videos_per_class"]) for own in protocol_reports(report).values()), 0
    )
    label = f" ({report['label']}, {classes} classes)" if report["label"] is not None else ""
    spread = f"mean ± deviation over splits {', '.join(report['splits'])}" if "splits" in report else ""
    return (
        f"{report['protocol']} of {short_name(report)} on {report['dataset']}{label}: "
        f"{report['videos']} {report['split']} videos, backbone {report['backbone']}; "
        f"{spread or 'values with 95 % intervals'}"
    )


def short_name(report: Mapping[str, Any]) -> str:
    """The checkpoint's file, without its digest; ``random`` where there is none."""
    name, _, _ = str(report["checkpoint"]).partition(" sha256:")
    return name.partition(" seed:")[0] if name.startswith("random seed:") else name


def format_skipped(skipped: Mapping[str, str]) -> list[str]:
    """One sentence per reason, with the protocols it holds for."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for name, reason in skipped.items():
        by_reason[reason].append(name)
    return [f"Left out: {', '.join(names)}: {reason}" for reason, names in by_reason.items()]


def _remarks(report: Mapping[str, Any]) -> list[str]:
    remarks = format_skipped(report.get("skipped", {}))
    for name, own in protocol_reports(report).items():
        remarks += [f"{name}: {text}" for text in _remarks_on(own)]
    return [*remarks, report["note"]] if "note" in report else remarks


def _remarks_on(own: Mapping[str, Any]) -> Iterator[str]:
    """What a protocol did otherwise than it was asked."""
    settings = own.get("settings", {})
    k, asked = settings.get("k"), settings.get("k_asked")
    if k is not None and asked is not None and k < asked:
        yield (
            f"{k} neighbours vote, not the {asked} asked for: no more than a class has train videos in the mean "
            "(cap_at_class_size), and no more than there are."
        )
    for metric, reason in settings.get("left_out", {}).items():
        yield f"{metric} is left out: {reason}"
    if shots := settings.get("shots_left_out"):
        yield f"{', '.join(map(str, shots))} shots are left out: the smallest class has fewer train videos."
    total = sum(parts.get("train", 0) for parts in own.get("videos_per_class", {}).values())
    for share in settings.get("fractions", []):
        used = own["details"].get(f"top1_at_{100 * share:g}_percent".replace(".", "_"), {}).get("labelled_videos")
        if used and total and used / total > 1.5 * share:
            yield (
                f"{100 * share:g} % of the labels are {used} of {total} train videos here, "
                f"{100 * used / total:.0f} %, as every class keeps one."
            )


def _columns(report: Mapping[str, Any]) -> list[str]:
    baselines = [name for own in protocol_reports(report).values() for name in own["baselines"]]
    return [short_name(report), *dict.fromkeys(baselines)]


def _rows(report: Mapping[str, Any], columns: list[str]) -> Iterator[tuple[str, list[str]]]:
    several = "results" in report
    for name, own in protocol_reports(report).items():
        metrics = SHOWN.get(name, tuple(own["metrics"])) if several else tuple(own["metrics"])
        for metric in metrics:
            if metric not in own["metrics"]:
                continue
            deviations = {**own.get("baselines_std", {}), columns[0]: own.get("metrics_std", {})}
            cells = [_cell(own["metrics"][metric], own["intervals"].get(metric), deviations[columns[0]].get(metric))]
            for column in columns[1:]:
                value = own["baselines"].get(column, {}).get(metric)
                interval = own.get("baseline_intervals", {}).get(column, {}).get(metric)
                deviation = deviations.get(column, {}).get(metric)
                cells.append("" if value is None else _cell(value, interval, deviation))
            yield (f"{name} {metric}" if several else metric), cells


def _cell(value: float, interval: list[float] | None, deviation: float | None) -> str:
    if deviation is not None:
        return f"{value:.3f} ± {deviation:.3f}"
    if interval is not None:
        return f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"
    return f"{value:.3f}"
