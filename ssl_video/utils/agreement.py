"""How all processes of a run come to the same decision at the same step, without waiting for a device."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from ssl_video.utils.distributed import world_size


class Agreement:
    """The largest of what all processes say, told to all of them at the same call.

    In one process that is at once. In several it is one call later: the numbers travel while the next step computes, by
    gloo and from the CPU, so that neither a device nor another process is waited for. All must call equally often.
    """

    def __init__(self) -> None:
        self._group: Any = dist.new_group(backend="gloo") if world_size() > 1 else None
        self._asked: tuple[torch.Tensor, Any] | None = None

    def ask(self, number: int) -> int:
        """Says ``number`` and returns the largest of the call before, 0 at the first; in one process ``number``."""
        if self._group is None:
            return number
        largest = self.close()
        tensor = torch.tensor([number])
        self._asked = tensor, dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self._group, async_op=True)
        return largest

    def close(self) -> int:
        """Waits for what is under way and returns the largest of it, 0 where nothing is."""
        if self._asked is None:
            return 0
        tensor, work = self._asked
        self._asked = None
        work.wait()
        return int(tensor)
