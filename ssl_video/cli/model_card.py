"""The model card of an exported backbone, in the Hugging Face Hub's format: what is known, and what is not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ssl_video.cli.compare import protocol_reports, read_report
from ssl_video.cli.scorecard import SHOWN
from ssl_video.cli.table import is_share
from ssl_video.hub.formats import TOLERANCE, Checked
from ssl_video.hub.pretrained import PretrainedBackbone
from ssl_video.hub.weights import BACKBONE_FILE, Weights, read_weights
from ssl_video.utils.errors import InputError
from ssl_video.utils.run import environment, last_checkpoint

SUPERVISED = "supervised"  # the method of the baseline that learns from labels
NOT_RECORDED = "not recorded"
NOT_MEASURED = "not measured"

Report = Mapping[str, Any]


def model_card(
    weights: Weights,
    model: PretrainedBackbone,
    *,
    config: Mapping[str, Any],
    record: Mapping[str, Any],
    graphs: Sequence[Checked],
    name: str,
    licence: str,
) -> str:
    """The card as Markdown.

    Args:
        weights: what was exported.
        model: the same, built.
        config: what rebuilds it, as it is written beside the weights.
        record: `run.json` of the run, empty where there is none.
        graphs: the other formats.
        name: of the repository or folder, for the example.
        licence: of the weights, by the Hub's name for it.
    """
    choices = record.get("choices", {})
    method, dataset = choices.get("method"), (weights.dataset or {}).get("name", choices.get("dataset"))
    parts = [
        _front_matter(method, dataset, backbone=str(config["name"]), licence=licence),
        f"# {config['name']}" + (f", pre-trained by {method} on {dataset}" if method else ""),
        f"A video backbone: it maps clips to vectors of {model.feature_dim} features. {_learnt(method, record)} It has "
        "no classifier. What the numbers below do not say was not measured.",
        "## How to load it",
        _loading(name, model, graphs),
        "## What it takes",
        _input(model, config),
        "## How it was trained",
        _training(weights, model, record, method=method, dataset=dataset, config=config),
        "## Files",
        _files(graphs),
        "## Scorecard",
        _scorecard(weights),
        "## Limits",
        _limits(method),
    ]
    return "\n\n".join(parts) + "\n"


def _learnt(method: str | None, record: Mapping[str, Any]) -> str:
    if method is None:
        return "How it was trained is not recorded beside it."
    if method == SUPERVISED:
        return "It was trained with labels, by the framework ssl_video, as a baseline."
    labels = f"with the labels of {record['labeled']} videos" if record.get("labeled") else "without labels"
    return f"It was trained {labels}, by the framework ssl_video."


def _front_matter(method: str | None, dataset: str | None, *, backbone: str, licence: str) -> str:
    kind = [] if method == SUPERVISED else ["self-supervised-learning"]
    tags = ["video", *kind, "feature-extraction", *([method] if method else []), backbone]
    matter: dict[str, Any] = {"license": licence, "library_name": "ssl_video", "tags": tags}
    if dataset is not None:
        matter["datasets"] = [dataset]
    # A value of JSON is one of YAML too.
    return "\n".join(["---", *(f"{key}: {json.dumps(value)}" for key, value in matter.items()), "---"])


def _loading(name: str, model: PretrainedBackbone, graphs: Sequence[Checked]) -> str:
    lines = [
        "```python",
        "import ssl_video",
        "",
        f'model = ssl_video.load("{name}")',
        f"features = model(model.transform(frames))  # frames: uint8 [N, {model.num_frames}, H, W, 3] → "
        f"[N, {model.feature_dim}]",
        "```",
        "",
        '`model.embed_file("video.mp4")` reads a file and gives the mean over five clips, as `ssl-video embed` does.',
    ]
    if graphs:
        lines.append(
            "The other files need neither ssl_video nor the class of the network: they take clips that are transformed "
            "already, float32 `clips` to `features`."
        )
    return "\n".join(lines)


def _input(model: PretrainedBackbone, config: Mapping[str, Any]) -> str:
    black = torch.zeros(1, model.num_frames, 240, 320, 3, dtype=torch.uint8)
    _, channels, frames, height, width = model.transform(black).shape
    transform = {key: value for key, value in config["input_transform"].items() if key != "_target_"}
    rows = {
        "layout": f"`[N, C, T, H, W]` = `[N, {channels}, {frames}, {height}, {width}]`, float32, RGB",
        "frames in a clip, T": model.num_frames,
        "frame stride": f"{model.frame_stride}, from a frame of a clip to the next in frames of the video",
        **{key: f"`{json.dumps(value)}`" for key, value in transform.items()},
        "scale": "pixels are divided by 255, then `(x - mean) / std` per channel" if "mean" in transform else "",
    }
    return _table({key: value for key, value in rows.items() if value != ""})


def _training(
    weights: Weights,
    model: PretrainedBackbone,
    record: Mapping[str, Any],
    *,
    method: str | None,
    dataset: str | None,
    config: Mapping[str, Any],
) -> str:
    versions = {**record.get("versions", {}), "python": record.get("python")} if record else {}
    steps = weights.step if weights.step is not None else record.get("steps")
    rows = {
        "backbone": f"{config['name']} (`{config['backbone']['_target_']}`), "
        f"{sum(one.numel() for one in model.backbone.parameters()):,} parameters",
        "method": method or NOT_RECORDED,
        "data set": dataset or NOT_RECORDED,
        "manifest hash": f"`{record['manifest_hash']}`" if "manifest_hash" in record else NOT_RECORDED,
        "videos": record.get("used", NOT_RECORDED),
        "optimizer steps": NOT_RECORDED if steps is None else steps,
        "seed": config.get("seed", NOT_RECORDED),
        "command": f"`{record['command']}`" if "command" in record else NOT_RECORDED,
        "revision of ssl_video": record.get("git_revision") or NOT_RECORDED,
        "device": record.get("device", NOT_RECORDED),
        "versions": ", ".join(f"{key} {value}" for key, value in versions.items()) or NOT_RECORDED,
        "weights": weights.label,
        "exported with": ", ".join(f"{key} {environment('cpu')['versions'][key]}" for key in ("ssl_video", "torch")),
    }
    return _table(rows) + "\n\nAll values of the run are in `config.yaml`."


def _table(rows: Mapping[str, Any]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {_escaped(str(value))} |" for key, value in rows.items())])


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _files(graphs: Sequence[Checked]) -> str:
    lines = [
        "| file | what | open dimensions | largest difference |",
        "|---|---|---|---|",
        f"| `{BACKBONE_FILE}` | weights, with the configuration as metadata | | |",
        "| `config.yaml` | configuration of the backbone, and of the run | | |",
    ]
    for graph in graphs:
        lines.append(
            f"| `{graph.file}` | {graph.format} graph | {', '.join(graph.open_dimensions)} | {graph.difference:.1e} |"
        )
    if graphs:
        shapes = {"×".join(map(str, shape)) for graph in graphs for shape in graph.shapes}
        lines += [
            "",
            "Difference: of a feature from the network's own in float32 on the CPU, as a share of the largest feature, "
            f"over random clips of {', '.join(sorted(shapes))}; a file with more than {TOLERANCE:.0e} is not written. "
            "In the dimensions that are not open a graph takes the size above only.",
        ]
    return "\n".join(lines)


def _limits(method: str | None) -> str:
    lines = [
        "- Features say what was of use on the data set above; on other videos, and with other clip lengths, strides "
        "and sizes than those above, nothing was measured unless the scorecard says so.",
        "- They are neither normalised nor calibrated: compare them by cosine, or fit a classifier.",
        "- What the videos show too often, too rarely or wrongly, the backbone may have learnt; nobody looked for it.",
        "- Intervals are 95 % bootstrap intervals over the test videos of one run: they do not say how much another "
        "seed would differ.",
    ]
    if method is not None:
        lines.append(
            f"- What the framework computes otherwise than the paper or its released code is listed in its METHODS.md, "
            f"section Deviations, {method}."
        )
    return "\n".join(lines)


# --- the scorecard ----------------------------------------------------------------------------------------------------


def _scorecard(weights: Weights) -> str:
    """A row for each metric of each protocol, beside the random backbone on the same clips."""
    reports, left_out = reports_of(weights)
    lines = [
        "| protocol | data (label, split) | metric | this backbone | random backbone |",
        "|---|---|---|---|---|",
    ]
    for report in reports:
        lines += _rows(report)
    measured = {report["protocol"] for report in reports}
    lines += [f"| {name} | | | {NOT_MEASURED} | {NOT_MEASURED} |" for name in SHOWN if name not in measured]
    lines += ["", "In brackets 95 % intervals; shares in per cent. The random backbone is the same network untrained."]
    if left_out:
        lines.append(f"Left out: {left_out} evaluations of other weights of the run.")
    return "\n".join(lines)


def reports_of(weights: Weights) -> tuple[list[Report], int]:
    """The newest result of each protocol on each data set, of these weights, and how many files are of other weights.

    A run goes on after it was evaluated, so a result counts only where it names this file, or the run's other file
    with the same tensors.
    """
    if weights.folder is None:
        return [], 0
    files = sorted(weights.folder.glob("evaluations/*/metrics.json"), key=lambda file: (file.stat().st_mtime_ns, file))
    newest: dict[tuple[Any, ...], Report] = {}
    left_out = 0
    labels = _labels(weights)
    for file in files:
        try:
            report = read_report(file)
        except InputError:  # not a result of ours, or a damaged one
            continue
        if report["checkpoint"] not in labels:
            left_out += 1
            continue
        for own in protocol_reports(report).values():
            where = tuple(own.get(key) for key in ("protocol", "variant", "dataset", "label", "split", "manifest_hash"))
            newest[where] = own
    order = list(SHOWN)
    return sorted(
        newest.values(), key=lambda own: order.index(own["protocol"]) if own["protocol"] in order else len(order)
    ), left_out


def _labels(weights: Weights) -> set[str]:
    """What results may call these weights."""
    assert weights.folder is not None and weights.state is not None
    labels = {weights.label}
    beside: list[Path | None] = [last_checkpoint(weights.folder), weights.folder / "checkpoints" / BACKBONE_FILE]
    for file in beside:
        if file is None or not file.is_file():
            continue
        other = read_weights(str(file))
        if other.label not in labels and _same(weights.state, other.state or {}):
            labels.add(other.label)
    return labels


def _same(state: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return state.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in state.items())


def _rows(report: Report) -> list[str]:
    protocol = str(report["protocol"])
    variant = report.get("variant", "default")
    changed = f", {', '.join(report['changed'])} changed" if report.get("changed") else ""
    title = protocol + ("" if variant == "default" else f" {variant}") + changed
    data = f"{report['dataset']} ({report['label']}, {report['split']})"
    random = report.get("baselines", {}).get("random", {})
    random_intervals = report.get("baseline_intervals", {}).get("random", {})
    random_std = report.get("baselines_std", {}).get("random", {})
    metrics = report["metrics"]
    return [
        f"| {title} | {data} | {metric.replace('_', ' ')} "
        f"| {_cell(metric, metrics, report.get('intervals', {}), report.get('metrics_std', {}))} "
        f"| {_cell(metric, random, random_intervals, random_std)} |"
        for metric in SHOWN.get(protocol, tuple(metrics))
        if metric in metrics
    ]


def _cell(metric: str, values: Report, intervals: Report, deviations: Report) -> str:
    value = values.get(metric)
    if value is None:
        return NOT_MEASURED
    scale = 100.0 if is_share(metric) else 1.0
    if (deviation := deviations.get(metric)) is not None:
        return f"{scale * value:.1f} ± {scale * deviation:.1f} (over official splits)"
    if (interval := intervals.get(metric)) is not None:
        return f"{scale * value:.1f} [{scale * interval[0]:.1f}, {scale * interval[1]:.1f}]"
    return f"{scale * value:.1f}"
