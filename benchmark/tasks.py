"""The order tasks that ``make proofs`` asks, and what is known of each: chance, ceilings, the rule of raw pixels."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """One order task.

    Attributes:
        overrides: of ``train.py``.
        chance: accuracy of a guess.
        ceilings: by law, the best accuracy there is; a law that says nothing of the task is absent.
        rule: function of ``ssl_video.pretext.pixel_rules``.
        balanced: the accuracy is the mean over classes.
        steps: of training, enough for what can be learnt here.
        duration: frames of a video.
        must_learn: laws that have to be learnt.
    """

    overrides: tuple[str, ...]
    chance: float
    ceilings: dict[str, float]
    rule: str
    balanced: bool = False
    steps: int = 600
    duration: int = 64
    must_learn: tuple[str, ...] = ("A", "B")


def _ceilings(chance: float, *, b: float = 1.0, e: float | None = None, probes: bool = True) -> dict[str, float]:
    known = {"A": 1.0, "B": b, "C": chance, "D": chance, "F": chance}
    known |= {} if e is None else {"E": e}
    # What a codec or a change of light may give away is not known: these are reported, not judged.
    return known | ({"C_h264": 1.0, "ramp": 1.0, "ramp_jittered": 1.0} if probes else {})


TASKS = {
    # The released head adds up what it sees in each frame, so it cannot compare two frames: it needs videos in which a
    # frame's own look tells how early it is among the five. In longer videos, with tuples anywhere, it has no answer.
    "shuffle_and_learn": Task(
        ("method=shuffle_and_learn",),
        1 / 2,
        _ceilings(1 / 2),
        "middle_is_between",
        balanced=True,
        steps=800,
        duration=26,
    ),
    "shuffle_and_learn_anywhere": Task(
        ("method=shuffle_and_learn",),
        1 / 2,
        {law: _ceilings(1 / 2)[law] for law in ("A", "C")},
        "middle_is_between",
        balanced=True,
        must_learn=(),
    ),
    # The defences move every frame by up to 2 pixels, so the blob has to move further than that between two frames.
    "opn_position": Task(
        ("method=opn", "method.merge=position", "sampler.patch=0.9"),
        1 / 12,
        _ceilings(1 / 12, b=2 / 3, e=1 / 3),
        "shortest_path",
        duration=28,
    ),
    "opn_time": Task(
        ("method=opn", "method.merge=time", "sampler.patch=0.9"),
        1 / 12,
        _ceilings(1 / 12, e=1 / 2, probes=False),
        "shortest_path",
        duration=28,
    ),
    "opn_none": Task(
        ("method=opn", "method.merge=none", "sampler.patch=0.9"),
        1 / 24,
        _ceilings(1 / 24, b=1 / 2, e=1 / 4, probes=False),
        "shortest_path",
        duration=28,
    ),
    "o3n": Task(("method=o3n",), 1 / 6, _ceilings(1 / 6) | {"D_shared": 1.0}, "most_change", steps=300),
    "vcop": Task(("method=vcop",), 1 / 6, _ceilings(1 / 6, e=1 / 2), "matching_boundaries", steps=300),
    # With clips of one frame the direction of time can't be seen inside a clip: reversible videos halve the ceiling.
    "vcop_1_frame": Task(
        ("method=vcop", "sampler.num_frames=1", "backbone=caffenet_small", "sampler.gap_frames=11"),
        1 / 6,
        _ceilings(1 / 6, b=1 / 2, e=1 / 2, probes=False),
        "matching_boundaries",
    ),
}
