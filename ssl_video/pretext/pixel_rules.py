"""What raw pixels answer without any learning: the row to print beside the accuracy of an order method.

Each rule looks at the presented frames only, compares them by the sum of their squared differences, and names a class.
Where a rule is nearly as good as a network, the network's accuracy says nothing of what it understands: on smooth
synthetic motion every rule but one answers (nearly) every question.
"""

import torch
from torch import Tensor

from ssl_video.pretext.permutations import all_permutations, order_classes


def frame_distances(frames: Tensor) -> Tensor:
    """Sums of squared pixel differences between all frames of a tuple: ``[B, n, ...]`` to ``[B, n, n]``."""
    flat = frames.flatten(2).double()
    return (flat.unsqueeze(2) - flat.unsqueeze(1)).square().sum(dim=3)


def middle_is_between(frames: Tensor) -> Tensor:
    """Shuffle and learn: is the middle frame closer to both ends than the ends are to each other?

    Args:
        frames: presented tuples ``[B, 3, ...]``.

    Returns:
        int64 ``[B]``, 1 = right order.
    """
    distances = frame_distances(frames)
    between = torch.maximum(distances[:, 0, 1], distances[:, 1, 2]) < distances[:, 0, 2]
    return between.long()


def shortest_path(frames: Tensor, classes: Tensor | None = None) -> Tensor:
    """Frame sorting: the order in which the way through all frames is shortest.

    The way back is as long as the way there, so the rule can't see the direction of time: where the classes depend on
    it (``merge="position"``) it guesses.

    Args:
        frames: presented tuples ``[B, 4, ...]``.
        classes: ``[classes, members, 4]`` as ``order_classes`` gives them; None is ``order_classes("position")``.

    Returns:
        int64 ``[B]``, labels.
    """
    classes = order_classes("position") if classes is None else classes
    orders = all_permutations(4)
    distances = frame_distances(frames).cpu()
    # An order says where each presented frame belongs, so its inverse visits the frames in time.
    visits = orders.argsort(dim=1)
    lengths = distances[:, visits[:, :-1], visits[:, 1:]].sum(dim=2)  # [B, 24]
    label_of_order = (orders[:, None, None] == classes.cpu()).all(dim=3).any(dim=2).long().argmax(dim=1)
    return label_of_order[lengths.argmin(dim=1)].to(frames.device)


def most_change(branches: Tensor) -> Tensor:
    """Odd one out: the clip whose neighbouring frames differ most in sum.

    Args:
        branches: presented clips ``[B, V, W, ...]``, frames before all other dimensions.

    Returns:
        int64 ``[B]``, the branch.
    """
    change = branches.flatten(3).double().diff(dim=2).square().sum(dim=(2, 3))
    return change.argmax(dim=1)


def matching_boundaries(clips: Tensor) -> Tensor:
    """Clip order: the order in which the last frame of each clip is closest to the first of the next.

    Args:
        clips: presented clips ``[B, n, T, ...]``, frames before all other dimensions.

    Returns:
        int64 ``[B]``, lexicographic ranks of the permutations that were presented.
    """
    first, last = (clips[:, :, frame].flatten(2).double() for frame in (0, -1))
    jumps = (last.unsqueeze(2) - first.unsqueeze(1)).square().sum(dim=3).cpu()  # [B, from, to]
    visits = all_permutations(clips.shape[1]).argsort(dim=1)
    steps = [jumps[:, visits[:, place], visits[:, place + 1]] for place in range(clips.shape[1] - 1)]
    return torch.stack(steps).sum(dim=0).argmin(dim=1).to(clips.device)
