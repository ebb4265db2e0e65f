"""One answer from many views of a video: clips times crops, averaged at a stated place."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor

# Where the mean over views is taken: before the classifier, after it, or after the softmax.
Averaged = Literal["features", "logits", "probabilities"]


def average_views(scores: Tensor, how: Literal["logits", "probabilities"]) -> Tensor:
    """Class probabilities of each video from the scores of its views.

    ``probabilities`` is the mean of the views' probabilities (a mixture: no view can veto a class), ``logits`` the
    softmax of the mean logits (a product: one sure view can). For one view both are its softmax. The largest is the
    prediction either way. With a linear classifier the mean of logits is that of features; see ``classify_views``.

    Args:
        scores: logits ``[N, V, C]``, floating point.
        how: what is averaged.

    Returns:
        ``[N, C]``, each row sums to 1.

    Raises:
        ValueError: another shape, no views, or another ``how``.
    """
    _check_views("scores", scores)
    if how == "probabilities":
        return scores.softmax(dim=2).mean(dim=1)
    if how == "logits":
        return scores.mean(dim=1).softmax(dim=1)
    raise ValueError(
        f"how={how!r} must be 'logits' or 'probabilities'; for the mean of features use classify_views, "
        "as it comes before there are scores."
    )


def classify_views(features: Tensor, classify: Callable[[Tensor], Tensor], how: Averaged) -> Tensor:
    """Class probabilities of each video from the features of its views.

    Args:
        features: ``[N, V, D]``, floating point.
        classify: maps ``[M, D]`` to logits ``[M, C]``.
        how: what is averaged.

    Returns:
        ``[N, C]``, each row sums to 1.

    Raises:
        ValueError: another shape, no views, or another ``how``.
    """
    _check_views("features", features)
    if how == "features":
        return classify(features.mean(dim=1)).softmax(dim=1)
    return average_views(classify(features.flatten(0, 1)).unflatten(0, features.shape[:2]), how)


def _check_views(name: str, tensor: Tensor) -> None:
    if tensor.ndim != 3 or tensor.shape[1] < 1 or not tensor.is_floating_point():
        raise ValueError(
            f"{name} of shape {tuple(tensor.shape)} and type {tensor.dtype} must be floating point [N, V, C] with "
            "V >= 1; a video has a view or more."
        )
