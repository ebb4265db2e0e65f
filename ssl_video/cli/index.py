"""`ssl-video index`: writes the manifest of a folder of videos and says what is in it."""

import argparse
import importlib.metadata
import sys
from collections import Counter
from pathlib import Path

from ssl_video.data.index import index_folder
from ssl_video.data.manifest import OK, Manifest
from ssl_video.utils.errors import InputError

FAULTS_SHOWN = 20
LABELS_SHOWN = 20


def main(argv: list[str]) -> int:
    """Runs the command; returns 0, or 2 where the input is refused."""
    given = _parser().parse_args(argv)
    try:
        # The manifest is opened before it is written over: files that have not changed are not looked into again.
        previous = Manifest.open(given.output, root=given.root) if given.output.exists() else None
        manifest = index_folder(
            given.root,
            labels=given.labels,
            previous=previous,
            num_workers=given.num_workers,
            images=given.images,
            decode_all=given.decode_all,
        )
        manifest.write(given.output)
    except InputError as error:
        print(f"ssl-video index: {error}", file=sys.stderr)
        return 2
    print(summary(manifest))
    print(f"decord comes from: {decord_distributions()}")
    print(f"written: {given.output}")
    return 0


def summary(manifest: Manifest) -> str:
    """Says how many videos there are, which cannot be used and why, and which labels they have."""
    rows = [manifest.segment(row) for row in range(len(manifest))]
    status, reasons = manifest.column("status"), manifest.column("reason")
    usable = [segment for segment in rows if status[segment.row] == OK]
    hours = sum(segment.num_frames / segment.fps for segment in usable if segment.fps) / 3600
    faulty = [segment for segment in rows if status[segment.row] != OK]
    counts = ", ".join(f"{count} {name}" for name, count in sorted(manifest.status_counts().items()) if name != OK)
    lines = [f"{len(usable)} videos ok ({hours:.2f} hours)" + (f", {counts}" if counts else "")]
    lines += [f"  {s.path}: {status[s.row]}: {reasons[s.row]}" for s in faulty[:FAULTS_SHOWN]]
    lines += [f"  and {len(faulty) - FAULTS_SHOWN} more"] if len(faulty) > FAULTS_SHOWN else []
    lines += [f"{manifest.num_left_out} files left out: the labels do not name them"] * bool(manifest.num_left_out)
    for name in ("split", *manifest.label_columns):
        lines += [f"{name}: {_counted(manifest.column(name))}"] if any(manifest.column(name)) else []
    return "\n".join(lines if manifest.label_columns else [*lines, "no labels"])


def decord_distributions() -> str:
    """Names the installed distribution that `import decord` comes from; two of them overwrite each other."""
    names = sorted(set(importlib.metadata.packages_distributions().get("decord", [])))
    described = " and ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    if not names:
        return "nothing (pip install decord2)"
    warning = " (they overwrite each other: uninstall both, then install decord2)" if len(names) > 1 else ""
    return described + warning


def _counted(values: list[str | None]) -> str:
    counts = Counter("(none)" if value is None else value for value in values)
    shown = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    more = f", and {len(shown) - LABELS_SHOWN} more" if len(shown) > LABELS_SHOWN else ""
    return ", ".join(f"{name} {count}" for name, count in shown[:LABELS_SHOWN]) + more


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ssl-video index", description=__doc__)
    parser.add_argument("root", type=Path, help="folder of videos")
    parser.add_argument("-o", "--output", type=Path, required=True, help="manifest to write, such as manifest.parquet")
    parser.add_argument("--labels", type=Path, help="CSV with the columns path and label (and split, group, …)")
    parser.add_argument("--num-workers", type=_positive, help="processes that look into files (default: all cores)")
    parser.add_argument("--images", action="store_true", help="take folders and zips of numbered images as videos too")
    parser.add_argument("--decode-all", action="store_true", help="decode every frame as a check (slow)")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} must be at least 1")
    return value
