"""``ssl-video report``: one HTML page about one run or several, with everything in it; it opens from disk."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from ssl_video.cli.compare import differences
from ssl_video.cli.parts import quiet
from ssl_video.cli.report_inputs import read_runs
from ssl_video.cli.report_videos import NO_LAYERS, RunVideos, split_overrides
from ssl_video.report.contents import Measured
from ssl_video.report.page import Activations, build_page, is_page
from ssl_video.utils.errors import InputError
from ssl_video.utils.run import write_text

_OVERRIDE = re.compile(r"[+~]{0,2}[\w./@-]+=")


def main(argv: Sequence[str]) -> int:
    """Writes the page; returns 0, or 2 where the input is refused."""
    quiet()
    parser = argparse.ArgumentParser(
        prog="ssl-video report",
        description=__doc__.splitlines()[0],
        usage="ssl-video report RUN [RUN …] [-o report.html] [dataset.root=DIR …]",
        epilog="Overrides are those of evaluate.py: dataset=NAME dataset.root=DIR say where the videos are now, "
        "checkpoint=FILE which weights an evaluation without a run was of.",
    )
    parser.add_argument("words", nargs="+", metavar="RUN", help="folder of a training run or of an evaluation")
    parser.add_argument(
        "-o", "--output", type=Path, help="the page (default: report.html in the folder of a single RUN)"
    )
    parser.add_argument("--force", action="store_true", help="write over an older page")
    parser.add_argument(
        "--layers",
        default="",
        help="layers whose units are shown, by name, or none (default: the last map, a middle one)",
    )
    parser.add_argument("--videos", type=int, default=200, help="videos looked at for units (default: 200; 0 for none)")
    parser.add_argument("--no-pictures", action="store_true", help="leave out all that needs the videos")
    given = parser.parse_intermixed_args(argv)
    overrides = [word for word in given.words if _OVERRIDE.match(word) and not Path(word).exists()]
    folders = [Path(word) for word in given.words if word not in overrides]
    try:
        if given.videos < 0:
            raise InputError(f"--videos={given.videos} must be at least 0, which leaves the units out.")
        path = write_report(
            folders,
            output=given.output,
            overrides=overrides,
            layers=given.layers,
            num_videos=given.videos,
            with_pictures=not given.no_pictures,
            force=given.force,
        )
    except InputError as fault:
        print(f"ssl-video report: {fault}", file=sys.stderr)
        return 2
    print(f"written: {path} ({path.stat().st_size / 1e6:.1f} MB)")
    return 0


def write_report(
    folders: Sequence[Path],
    *,
    output: Path | None = None,
    overrides: Sequence[str] = (),
    layers: str = "",
    num_videos: int = 200,
    with_pictures: bool = True,
    force: bool = False,
) -> Path:
    """Writes the page and returns its path.

    A file that is not a page of ours is never written over, whatever ``force`` says. With ``force`` an older page of
    ours is replaced, in one step, and only once the new one is complete: this is for a caller that has just written
    new results into a folder in which the page of earlier ones may lie, whether or not those results are still there.

    Args:
        folders: of runs and evaluations.
        output: the page; by default ``report.html`` in the only folder, or here where there are several.
        overrides: of ``evaluate.py``; those that say where videos and weights are count.
        layers: names joined by commas; empty for the default, ``none`` for none.
        num_videos: most videos that units are looked for in.
        with_pictures: whether the videos are read at all.
        force: whether an older page of ours may be written over; without it any file in the place is refused.

    Raises:
        InputError: no folder, one without a result, or an output that may not be written: a folder, a file that is no
            page of ours, or, without ``force``, a page of ours.
    """
    if not folders:
        raise InputError("no RUN is given; name the folder of a training run or of an evaluation.")
    target = output or (folders[0] / "report.html" if len(folders) == 1 else Path("report.html"))
    _check_target(target, force=force)
    runs = read_runs(folders)
    checkpoint, own = split_overrides(overrides)
    if checkpoint is not None and len(folders) > 1:
        raise InputError(f"checkpoint={checkpoint} cannot be that of {len(folders)} runs; each brings its own.")
    videos = {
        run.name: RunVideos(folder, checkpoint=checkpoint, overrides=own, wanted=with_pictures)
        for run, folder in zip(runs, folders, strict=True)
    }
    activations: dict[str, Activations] = {}
    if layers != NO_LAYERS and num_videos:
        for run in runs:
            found = videos[run.name].activations(run, layers=layers, num_videos=num_videos)
            if found is not None:
                activations[run.name] = found

    def load_pictures(one: Measured, paths: Sequence[str]) -> dict[str, bytes]:
        report = one.report
        return videos[one.run].pictures(str(report.get("dataset")), str(report.get("manifest_hash")), paths)

    page = build_page(
        runs,
        differences=differences,
        load_pictures=load_pictures,
        activations=activations,
        more_notes=lambda: [f"{name}: {note}" for name, one in videos.items() for note in one.notes],
    )
    try:
        write_text(target, page)
    except OSError as fault:
        raise InputError(f"--output={target} cannot be written ({fault.strerror}); name another file.") from fault
    return target


def _check_target(target: Path, *, force: bool) -> None:
    if not target.exists():
        return
    if not target.is_file():
        raise InputError(f"--output={target} is no file; name a file such as {target / 'report.html'}.")
    with target.open("rb") as file:
        if not is_page(file.read(4096)):
            raise InputError(
                f"--output={target} exists and is no page of ours, so it stays; move it, or name another file."
            )
    if not force:
        raise InputError(f"--output={target} exists; name another file, or say --force to write over it.")
