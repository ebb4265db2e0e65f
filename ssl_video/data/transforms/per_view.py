"""A transform for each view, for methods whose views have different roles."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ssl_video.data.transforms.base import Drawn, Transform
from ssl_video.utils.errors import InputError


class PerView(Transform):
    """View v goes through transform v.

    The asymmetric views of BYOL (Grill et al., NeurIPS 2020), which CVRL (Qian et al., CVPR 2021) and MoCo v3 (Chen et
    al., ICCV 2021) took over: one strongly blurred, one solarised. Which clip gets which role is chance, since the
    samplers of contrastive methods give out their clips in random order.

    Args:
        views: one transform per view, by name, in the order of the views; all give clips of the same size. Names, not
            a list, so that a config or a command line can change one setting of one view.
    """

    def __init__(self, *, views: Mapping[str, Transform]) -> None:
        if not views:
            raise ValueError("views={} must hold a transform for each view of the sampler.")
        self.views = dict(views)

    def draw(self, sizes: Sequence[tuple[int, int]], *, num_frames: int) -> Drawn:
        """Draw for each clip by its own transform.

        Raises:
            InputError: there are more or fewer clips than transforms.
        """
        if len(sizes) != len(self.views):
            raise InputError(
                f"sampler.num_views={len(sizes)}, but transform.views holds {len(self.views)} transforms "
                f"({', '.join(self.views)}); choose a sampler with as many views, or a transform that treats all alike."
            )
        drawn = [
            view.draw([size], num_frames=num_frames) for view, size in zip(self.views.values(), sizes, strict=True)
        ]
        values = {name: torch.cat([own.values[name] for own in drawn]) for name in drawn[0].values}
        return Drawn([part for own in drawn for part in own.parts], values)

    def finish(self, clips: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        """Turn `[N, 3, T, h, w]` uint8, the views of a sample together, into float32, each by its own transform."""
        number = len(self.views)
        finished: Tensor | None = None
        for place, view in enumerate(self.views.values()):
            own = view.finish(clips[place::number], {name: value[place::number] for name, value in values.items()})
            if finished is None:
                finished = own.new_empty((len(clips), *own.shape[1:]))
            finished[place::number] = own
        assert finished is not None
        return finished
