"""Segments without a video behind them, for samplers."""

from ssl_video.data.manifest import Segment


def segment(num_frames: int) -> Segment:
    """Return a segment of `num_frames` frames named clip_a, which begins at frame 100 of its file."""
    return Segment(
        row=0,
        segment_id="clip_a#0",
        video_id="clip_a",
        path="clip_a.mp4",
        first_frame=100,
        num_frames=num_frames,
        fps=25.0,
        width=64,
        height=48,
    )
