"""What the neighbour protocols compare: videos or clips, by exact search or by faiss."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ssl_video.evaluation.clips import Pooling
from ssl_video.evaluation.features import FeatureSet
from ssl_video.metrics.faiss_search import nearest_by_faiss
from ssl_video.metrics.knn import nearest, own_rows
from ssl_video.utils.errors import InputError

Level = Literal["video", "clip"]
Search = Literal["exact", "faiss"]

# Neighbours of each test video that a result names.
SHOWN_NEIGHBOURS = 10


@dataclass(frozen=True)
class Items:
    """What is compared of a part: its videos, or each of their clips.

    Attributes:
        features: `[M, D]`.
        labels: `[M]`.
        videos: `[M]` int64, the same for items of one video, in either part.
    """

    features: Tensor
    labels: Tensor
    videos: Tensor


def compared_items(train: FeatureSet, test: FeatureSet, level: Level) -> tuple[Items, Items]:
    """Return the items of train and of test; at the clip level the clips of a video stand together."""
    numbers = np.unique([*train.video_ids, *test.video_ids], return_inverse=True)[1]
    videos = torch.from_numpy(numbers.astype(np.int64)).split([len(train), len(test)])
    parts = []
    for part, own in zip((train, test), videos, strict=True):
        if level == "video":
            parts.append(Items(part.video_features(), part.labels, own))
        else:
            labels, numbers_of_clips = (each.repeat_interleave(part.num_clips) for each in (part.labels, own))
            parts.append(Items(part.features.flatten(0, 1), labels, numbers_of_clips))
    return parts[0], parts[1]


def reach(train: Items, test: Items) -> int:
    """Return how many train items every test item may find: all but those of its own video.

    Raises:
        InputError: there are none.
    """
    left = len(train.labels) - int(own_rows(test.videos, train.videos).max())
    if left == 0:
        raise InputError(
            "the train part holds no video besides the test video that asks, at least one other is needed; "
            "give a split column or dataset.test_fraction=0.3."
        )
    return left


def find_nearest(train: Items, test: Items, *, k: int, search: Search) -> tuple[Tensor, Tensor]:
    """Return cosines `[M, k]` and train items `[M, k]` of each test item, nearest first, none of its own video."""
    videos = (test.videos, train.videos)
    if search == "faiss":
        return nearest_by_faiss(test.features, train.features, k=k, videos=videos)
    return nearest(test.features, train.features, k=k, videos=videos)


def check_comparison(*, level: Level, pooling: Pooling, search: Search) -> None:
    """Raise ValueError for words that are none of the choices, InputError where faiss is asked for and missing."""
    for name, word, choices in (("level", level, Level), ("pooling", pooling, Pooling), ("search", search, Search)):
        if word not in get_args(choices):
            raise ValueError(f"{name}={word} must be one of {', '.join(get_args(choices))}.")
    if search == "faiss" and find_spec("faiss") is None:
        raise InputError(
            "search=faiss needs the faiss library, which is not installed; pip install faiss-cpu (the extra faiss), "
            "or take evaluation.search=exact, which needs no more memory and finds the same."
        )
