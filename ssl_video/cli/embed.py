"""``ssl-video embed``: the features of any videos as a table or as tensors, to be used elsewhere."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import DictConfig
from safetensors.torch import save_file
from torch import Tensor

from ssl_video.cli.baselines import build_backbones
from ssl_video.cli.extraction import Rows, extract_rows
from ssl_video.cli.features import build_evaluation_data
from ssl_video.cli.parts import PROVIDED, EvaluateSettings, quiet, share_cores
from ssl_video.cli.resume import overrides_by_key
from ssl_video.cli.weights import complete_overrides
from ssl_video.data.datamodule import VideoDataModule
from ssl_video.data.manifest import OK, SPLITS
from ssl_video.evaluation.clips import ClipSpec
from ssl_video.evaluation.extract import Extracted
from ssl_video.hub.weights import Weights, read_weights
from ssl_video.utils.config import compose_checked
from ssl_video.utils.distributed import rank
from ssl_video.utils.errors import InputError
from ssl_video.utils.files import write_atomically

ALL = "all"
SHOWN = 20  # unreadable videos that are named
VIDEOS_AT_A_TIME = 1024
METADATA_KEY = b"ssl_video"


def main(argv: Sequence[str]) -> int:
    """Writes the features; returns 0, 2 where the input is refused, 130 where it is interrupted."""
    quiet()
    given, overrides = _parser().parse_known_args(argv)
    try:
        embed(given, overrides)
    except InputError as fault:
        print(f"ssl-video embed: {fault}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; nothing was written.", file=sys.stderr)
        return 130
    return 0


def embed(given: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Extracts and writes.

    Args:
        given: the command's own options.
        overrides: as those of ``evaluate.py``.

    Raises:
        InputError: a fault of the command line or of the configuration, an output that is there, no readable video.
    """
    write = _writer(given)
    wrong = [word for word in overrides if "=" not in word]
    if wrong:
        raise InputError(f"{wrong[0]!r} is neither an option nor an override key=value; see ssl-video embed --help.")
    config = _compose(list(overrides))
    share_cores(config)
    weights = read_weights(config.checkpoint)
    datamodule = build_evaluation_data(config)
    rows, faults = _rows(datamodule, given.split)
    name, backbone = next(iter(build_backbones(config, weights).items()))
    spec = ClipSpec(num_clips=given.num_clips)
    extracted = extract_rows(config, datamodule, {name: backbone}, [spec], rows, title="features")
    if rank() > 0:
        return
    paths = datamodule.manifest.column("path")
    faults += [f"{paths[row]}: {reason}" for row, reason in extracted.unreadable.items()]
    _tell(faults)
    if not len(extracted.rows):
        raise InputError(f"none of the {len(faults)} videos can be read; nothing was written.")
    features = extracted.features[name, spec]
    content = _Content(datamodule, extracted, features, given.level, _describe(config, weights, datamodule, given))
    try:
        write_atomically(given.output, lambda temporary: write(content, temporary))
    except OSError as fault:
        raise InputError(f"--output={given.output} cannot be written ({fault.strerror}); name another file.") from fault
    print(
        f"written: {given.output} ({len(extracted.rows)} videos, {features.shape[-1]} features of each"
        f"{f' of {features.shape[1]} clips' if given.level == 'clip' else ''}; {len(faults)} unreadable)"
    )


class _Content:
    """What goes into the file."""

    def __init__(
        self,
        datamodule: VideoDataModule,
        extracted: Extracted,
        features: Tensor,
        level: str,
        description: dict[str, Any],
    ) -> None:
        segments = datamodule.manifest.column("segment_id")
        classes: list[str | None] = [*datamodule.class_names, None]  # -1 is none
        self.features = features
        self.level = level
        self.description = description
        self.columns = {
            "video_id": extracted.video_ids,
            "segment_id": [segments[row] for row in extracted.rows.tolist()],
            "path": extracted.paths,
            "label": [classes[label] for label in extracted.labels.tolist()],
        }

    def values(self, start: int, stop: int) -> Tensor:
        """``[n, V, D]`` of some videos, or ``[n, 1, D]``, the means over their clips, float32."""
        some = self.features[start:stop]
        return some if self.level == "clip" else some.double().mean(dim=1, keepdim=True).float()


def _write_parquet(content: _Content, path: Path) -> None:
    """A row per video, or per clip with the clip's number; some videos at a time."""
    by_clip = content.level == "clip"
    dim = content.features.shape[-1]
    fields: list[Any] = [pa.field(name, pa.string()) for name in content.columns]
    fields += [pa.field("clip", pa.int32())] * by_clip + [pa.field("features", pa.list_(pa.float32(), dim))]
    schema = pa.schema(fields, metadata={METADATA_KEY: json.dumps(content.description).encode()})
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, len(content.features), VIDEOS_AT_A_TIME):
            values = content.values(start, start + VIDEOS_AT_A_TIME)
            num_clips = values.shape[1]
            columns: list[Any] = [
                pa.array(np.repeat(np.array(column[start : start + len(values)], dtype=object), num_clips), pa.string())
                for column in content.columns.values()
            ]
            columns += [pa.array(np.tile(np.arange(num_clips, dtype=np.int32), len(values)))] * by_clip
            columns += [pa.FixedSizeListArray.from_arrays(pa.array(values.numpy().reshape(-1)), dim)]
            writer.write_table(pa.table(columns, schema=schema))


def _write_safetensors(content: _Content, path: Path) -> None:
    """``features``: ``[N, D]``, or ``[N, V, D]`` of clips; names and labels as JSON lists in the metadata."""
    values = content.values(0, len(content.features))
    lists = {f"{name}s": json.dumps(column) for name, column in content.columns.items()}
    tensors = {"features": (values if content.level == "clip" else values[:, 0]).contiguous()}
    save_file(tensors, path, metadata={**lists, "description": json.dumps(content.description)})


WRITERS: dict[str, Callable[[_Content, Path], None]] = {
    ".parquet": _write_parquet,
    ".safetensors": _write_safetensors,
}


def _writer(given: argparse.Namespace) -> Callable[[_Content, Path], None]:
    """What writes the file asked for; checked before anything is computed."""
    if given.output.suffix not in WRITERS:
        raise InputError(f"--output={given.output} must end in {' or '.join(WRITERS)}, which says what is written.")
    if given.output.exists():
        raise InputError(f"--output={given.output} is there already; name another file or move it away.")
    if given.num_clips < 1:
        raise InputError(f"--num-clips={given.num_clips} must be at least 1; a video is seen through its clips.")
    return WRITERS[given.output.suffix]


def _compose(overrides: list[str]) -> DictConfig:
    """The configuration of an evaluation without baselines, of data with any number of unreadable videos."""
    own = ["baselines=[]"]
    if "dataset.max_unreadable_share" not in overrides_by_key(overrides):
        own += ["dataset.max_unreadable_share=1.0"]
    return compose_checked(
        "evaluate", complete_overrides([*own, *overrides]), provided=PROVIDED, settings=EvaluateSettings
    )


def _rows(datamodule: VideoDataModule, split: str) -> tuple[Rows, list[str]]:
    """Rows that could be read when they were indexed, and what is wrong with the others."""
    manifest = datamodule.manifest
    rows = np.arange(len(manifest)) if split == ALL else datamodule.splits[split]
    if not len(rows):
        there = [name for name, some in datamodule.splits.items() if len(some)]
        raise InputError(f"--split={split} has no videos in {datamodule.name}; {' and '.join(there)} have, or use all.")
    status, reasons, paths = (manifest.column(name) for name in ("status", "reason", "path"))
    faults = [f"{paths[row]}: {status[row]} ({reasons[row]})" for row in rows.tolist() if status[row] != OK]
    return np.array([row for row in rows.tolist() if status[row] == OK], dtype=np.int64), faults


def _tell(faults: Sequence[str]) -> None:
    if not faults:
        return
    print(f"{len(faults)} videos cannot be read and are left out:", file=sys.stderr)
    print("\n".join(f"  {fault}" for fault in faults[:SHOWN]), file=sys.stderr)
    if len(faults) > SHOWN:
        print(f"  and {len(faults) - SHOWN} more", file=sys.stderr)


def _describe(
    config: DictConfig, weights: Weights, datamodule: VideoDataModule, given: argparse.Namespace
) -> dict[str, Any]:
    """Where the features come from, without paths of this machine."""
    return {
        "checkpoint": weights.label if weights.state is not None else f"random seed:{config.seed}",
        "dataset": datamodule.name,
        "manifest_hash": datamodule.manifest.content_hash(),
        "split": given.split,
        "level": given.level,
        "num_clips": given.num_clips,
        "num_frames": config.num_frames,
        "frame_stride": config.frame_stride,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ssl-video embed",
        description=__doc__,
        epilog="Overrides are those of evaluate.py: checkpoint=RUN dataset=folder dataset.root=DIR …; labels are not "
        "needed.",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="the file: .parquet or .safetensors")
    parser.add_argument("--level", choices=("video", "clip"), default="video", help="mean over clips, or each clip")
    parser.add_argument("--split", choices=(ALL, *SPLITS), default=ALL, help="which videos (default: all)")
    parser.add_argument("--num-clips", type=int, default=5, help="clips per video (default: 5)")
    return parser
