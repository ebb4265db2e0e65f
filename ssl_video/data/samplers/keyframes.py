"""Clips that begin where decoding begins: starts moved back to the keyframe before them."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ssl_video.data.manifest import Segment

Snap = Literal["keyframe"] | None
NO_KEYFRAMES = "no_keyframes"


def check_snap(snap: Snap) -> None:
    """Raise ValueError for another word than `keyframe`."""
    if snap not in (None, "keyframe"):
        raise ValueError(f"snap={snap!r} must be keyframe, or null to leave the starts where they were drawn.")


def snapped(starts: np.ndarray, *, segment: Segment, snap: Snap) -> np.ndarray:
    """Move starts to the last keyframe at or before them; nothing is then decoded in vain.

    A keyframe is as likely as there are starts between it and the next. Where keyframes are far apart (250 frames in
    files as they come) a video has two or three starts left, so this is for files with many, as `ssl-video prepare`
    writes them. A clip then begins with an intra-coded picture, which looks a little different from the others: that
    is the same for all clips of a contrastive sample, but among the clips of an order task it would mark those that
    were moved, so the samplers of order tasks do not offer it.

    Args:
        starts: first frames of clips, of any shape, counted from the segment's first frame.
        segment: with its keyframes; where they are not known, and before its first keyframe, starts stay.
        snap: `keyframe`, or None for no change.
    """
    if snap is None or segment.keyframes is None or not len(segment.keyframes):
        return starts
    places = np.searchsorted(segment.keyframes, starts, side="right") - 1
    return np.where(places >= 0, segment.keyframes[np.maximum(places, 0)], starts)


def snap_flags(segment: Segment, snap: Snap) -> tuple[str, ...]:
    """What a request says where starts could not be moved; runs count it."""
    return (NO_KEYFRAMES,) if snap is not None and segment.keyframes is None else ()
