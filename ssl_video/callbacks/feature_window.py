"""Features of the last training clips, and what is to be said of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ssl_video.callbacks.taps import Tap
from ssl_video.data.batch import ClipBatch
from ssl_video.metrics.alignment import clip_alignment
from ssl_video.metrics.feature_health import feature_health
from ssl_video.metrics.same_video import group_by_video
from ssl_video.utils.distributed import gather, gather_objects, rank, world_size


class FeatureWindow:
    """The features that a module made of the last training clips of this process, batch by batch.

    Args:
        module: backbone or projector.
        size: clips of all processes that are looked at together.
    """

    def __init__(self, module: nn.Module, *, size: int) -> None:
        self.tap = Tap(module)
        self.size = size
        self._batches: deque[Tensor] = deque()

    def take(self) -> None:
        """Adds what has passed in this batch, and forgets what is too old."""
        if not self.tap.outputs:
            self.tap.watch_map()
            return
        # Copied: an output may be a small part of a large tensor, or be written over by the next step.
        rows = torch.cat(self.tap.outputs)
        if len(rows) < 2 or rows.ndim != 2:
            return
        self._batches.append(rows)
        while sum(map(len, self._batches)) - len(self._batches[0]) >= self.size / world_size():
            self._batches.popleft()

    def describe(self) -> dict[str, float]:
        """As ``feature_health``, of the clips of all processes; empty on all but the first, and where there are none.

        All processes must call it in the same step.
        """
        if not self._batches:
            return {}
        rows = gather(torch.cat(list(self._batches)).float())
        lengths = [length for own in gather_objects([len(batch) for batch in self._batches]) for length in own]
        return feature_health(rows.cpu().split(lengths)) if rank() == 0 else {}

    def alignment(self, batch: object, clips: list[Tensor]) -> float | None:
        """Mean squared distance of the unit-length features of two clips of a video, over the last batch.

        All processes must call it in the same step.

        Args:
            batch: the last one.
            clips: that the backbone was given in its passes.

        Returns:
            None where the batch has one clip of each video, or the method changes clips before it encodes them.
        """
        outputs = self.tap.outputs
        if not outputs or not isinstance(batch, ClipBatch) or batch.clips.shape[1] < 2:
            return None
        values = torch.empty(0, dtype=torch.float64, device=outputs[0].device)
        same_shape = len({one.shape[1:] for one in clips}) == 1
        if same_shape and sum(map(len, outputs)) == sum(map(len, clips)):
            grouped = group_by_video(torch.cat(clips), torch.cat(outputs).float(), batch.clips)
            values = clip_alignment(grouped) if len(grouped) else values
        values = gather(values)
        return float(values.mean()) if len(values) else None

    def state_dict(self) -> dict[str, Any]:
        """The features of all processes, so that a resumed run goes on with them; all must call it together."""
        lengths = gather_objects([len(batch) for batch in self._batches])
        # Processes begin to see features in the same step: all have some, or none has.
        rows = gather(torch.cat(list(self._batches))).cpu() if self._batches else torch.empty(0, 0)
        return {"rows": rows, "lengths": lengths, "watches_map": self.tap.watches_map}

    def load_state_dict(self, state: Mapping[str, Any], *, device: torch.device) -> None:
        """Takes up this process's features again; none where the number of processes is another."""
        if state["watches_map"]:  # found out by the first step, which a resumed run must not miss
            self.tap.watch_map()
        lengths: list[list[int]] = state["lengths"]
        if len(lengths) != world_size():
            return
        start = sum(map(sum, lengths[: rank()]))
        rows = state["rows"][start : start + sum(lengths[rank()])].to(device)
        self._batches = deque(rows.split(lengths[rank()])) if len(rows) else deque()

    def close(self) -> None:
        """Lets go of the module and the features."""
        self.tap.close()
        self._batches.clear()
