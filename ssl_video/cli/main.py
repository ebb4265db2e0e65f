"""``ssl-video``: one command, a few words."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

# Each word's module has main(argv) -> exit code; a module is imported only when its word is said.
COMMANDS = {
    "train": ("ssl_video.cli.train", "pre-train a backbone (overrides as for train.py)"),
    "evaluate": ("ssl_video.cli.evaluate", "measure a backbone (overrides as for evaluate.py)"),
    "index": ("ssl_video.cli.index", "write the manifest of a folder of videos"),
    "prepare": ("ssl_video.cli.prepare", "write small copies of a data set that decode about ten times faster"),
    "motion": ("ssl_video.cli.motion", "measure where and when videos move, for samplers that choose by it"),
    "doctor": ("ssl_video.cli.doctor", "look at installation, machine and data, and say what to fix"),
    "show": ("ssl_video.cli.show", "draw what a method really sees (overrides as for train.py)"),
    "bench": ("ssl_video.cli.bench", "where a step's time goes, and what to do (overrides as for train.py)"),
    "embed": ("ssl_video.cli.embed", "write the features of any videos (overrides as for evaluate.py)"),
    "table": ("ssl_video.cli.table", "print the results below some folders as one table"),
    "compare": ("ssl_video.cli.compare", "two results side by side, and whether they may be compared"),
    "report": ("ssl_video.cli.report", "write one HTML page about one run or several; it opens without a network"),
    "export": ("ssl_video.cli.export", "a backbone as a folder to give away: weights, model card, graphs"),
    "demo": ("ssl_video.cli.demo", "make data, pre-train, evaluate, draw: a few minutes"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command named first and returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print("usage: ssl-video COMMAND …\n")
        print("\n".join(f"  {name:<10} {text}" for name, (_, text) in COMMANDS.items()))
        return 0 if words else 2
    if words[0] not in COMMANDS:
        print(f"ssl-video: there is no command {words[0]!r}; there are: {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    sys.argv = [sys.argv[0], *words]
    return int(importlib.import_module(COMMANDS[words[0]][0]).main(words[1:]))


if __name__ == "__main__":
    sys.exit(main())
