"""A transform for each view, for methods whose views have different roles."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ssl_video.data.dataset import ClipTransform
from ssl_video.utils.errors import InputError


class PerView:
    """View v goes through transform v.

    The asymmetric views of BYOL (Grill et al., NeurIPS 2020), which CVRL (Qian et al., CVPR 2021) and MoCo v3 (Chen et
    al., ICCV 2021) took over: one strongly blurred, one solarised. Which clip gets which role is chance, since the
    samplers of contrastive methods give out their clips in random order.

    Args:
        views: one transform per view, by name, in the order of the views; all give clips of the same size. Names, not
            a list, so that a config or a command line can change one setting of one view.
    """

    def __init__(self, *, views: Mapping[str, ClipTransform]) -> None:
        if not views:
            raise ValueError("views={} must hold a transform for each view of the sampler.")
        self.views = dict(views)

    def __call__(self, clips: Tensor) -> Tensor:
        """Turn `[V, T, H, W, 3]` uint8 into `[V, 3, T, h, w]` float32, each view by its own transform.

        Raises:
            InputError: there are more or fewer clips than transforms.
        """
        if len(clips) != len(self.views):
            raise InputError(
                f"sampler.num_views={len(clips)}, but transform.views holds {len(self.views)} transforms "
                f"({', '.join(self.views)}); choose a sampler with as many views, or a transform that treats all alike."
            )
        return torch.cat([view(clip) for view, clip in zip(self.views.values(), clips.split(1), strict=True)])

    def decode_size(self, height: int, width: int) -> tuple[int, int] | None:
        """Return the largest of the views' sizes, None if one of them needs full size."""
        largest = (0, 0)
        for view in self.views.values():
            size = view.decode_size(height, width)
            if size is None:
                return None
            largest = max(largest, size, key=lambda sides: sides[0] * sides[1])
        return largest
