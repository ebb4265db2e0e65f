"""Receptive fields against the closed form of stacked convolutions, and the right clips under the right units."""

from collections.abc import Iterable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ssl_video.backbones.base import Backbone
from ssl_video.backbones.r3d import R3D
from ssl_video.data.batch import ClipBatch
from ssl_video.report.activations import FEATURE_MAP, default_layers, receptive_field, top_activations
from ssl_video.utils.errors import InputError

# Kernel, stride and padding of each convolution, in time, height and width.
LAYERS = (
    ((3, 5, 3), (1, 2, 1), (1, 2, 0)),
    ((1, 3, 3), (1, 1, 2), (0, 1, 1)),
    ((3, 1, 3), (2, 1, 1), (0, 0, 1)),
)


class Stack(Backbone):
    """Convolutions one after the other, with or without rectifiers."""

    def __init__(self, *, rectified: bool) -> None:
        super().__init__()
        widths = (3, 4, 5, 6)
        layers: list[nn.Module] = []
        for number, (kernel, stride, padding) in enumerate(LAYERS):
            layers.append(nn.Conv3d(widths[number], widths[number + 1], kernel, stride, padding))
            layers += [nn.ReLU(inplace=True)] * rectified
        self.layers = nn.Sequential(*layers)
        self.feature_dim = widths[-1]

    def feature_map(self, clips: Tensor) -> Tensor:
        self.check_clips(clips)
        result: Tensor = self.layers(clips)
        return result


def closed_form(position: Sequence[int], shape: Sequence[int], *, depth: int) -> tuple[int, ...]:
    """The input places that a position of the map after `depth` convolutions can see, by kernels and strides."""
    ends: list[int] = []
    for axis in range(3):
        first, last = position[axis], position[axis]
        for kernel, stride, padding in reversed(LAYERS[:depth]):
            first = first * stride[axis] - padding[axis]
            last = last * stride[axis] - padding[axis] + kernel[axis] - 1
        ends += [max(first, 0), min(last, shape[axis] - 1) + 1]
    return tuple(ends)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("layer", "depth"), [("layers.0", 1), ("layers.1", 2), (FEATURE_MAP, 3)])
def test_the_field_of_convolutions_is_that_of_their_kernels(seed: int, layer: str, depth: int) -> None:
    torch.manual_seed(seed)
    network = Stack(rectified=False).eval()
    clip = torch.randn(3, 9, 21, 23)
    value, position, box = receptive_field(network, clip, layer=layer, unit=seed % 4)
    assert box == closed_form(position, clip.shape[1:], depth=depth)
    # The value is that of a plain forward pass, at the place where it is largest.
    with torch.no_grad():
        maps = network.layers[:depth](clip[None])[0, seed % 4]
    assert value == pytest.approx(float(maps.max()))
    assert float(maps[position]) == float(maps.max())


@pytest.mark.parametrize("seed", range(4))
def test_pixels_outside_the_field_change_nothing_and_some_inside_do(seed: int) -> None:
    torch.manual_seed(seed)
    network = Stack(rectified=True).eval()
    clip = torch.randn(3, 9, 21, 23)
    value, position, box = receptive_field(network, clip, layer=FEATURE_MAP, unit=1)
    limit = closed_form(position, clip.shape[1:], depth=3)
    assert value > 0 and box is not None
    assert all(box[2 * axis] >= limit[2 * axis] and box[2 * axis + 1] <= limit[2 * axis + 1] for axis in range(3))
    inside = torch.zeros(clip.shape[1:], dtype=torch.bool)
    inside[box[0] : box[1], box[2] : box[3], box[4] : box[5]] = True

    def activation(changed: Tensor) -> float:
        with torch.no_grad():
            return float(network.feature_map(changed[None])[0, 1][position])

    assert activation(clip + 1e-4 * torch.randn_like(clip) * ~inside) == pytest.approx(value, abs=1e-6)
    assert activation(clip + 1e-2 * inside) != pytest.approx(value, abs=1e-6)


def test_a_unit_that_nothing_moves_has_no_field() -> None:
    network = Stack(rectified=True).eval()
    last = network.layers[-2]
    assert isinstance(last, nn.Conv3d) and last.bias is not None
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(-1.0)
    assert receptive_field(network, torch.randn(3, 9, 21, 23), layer=FEATURE_MAP, unit=0)[2] is None


def test_what_a_later_layer_writes_into_a_map_is_not_seen() -> None:
    network = Stack(rectified=True).eval()
    first = network.layers[0]
    assert isinstance(first, nn.Conv3d) and first.bias is not None
    with torch.no_grad():
        first.bias.fill_(-100.0)
    value, _, box = receptive_field(network, torch.randn(3, 9, 21, 23), layer="layers.0", unit=0)
    assert value < -90 and box is not None  # the rectifier behind it, which works in place, would give 0


class Brightness(Backbone):
    """Unit 0 fires with the brightest red place of a clip, unit 1 with the brightest green one, unit 2 never."""

    feature_dim = 3

    def __init__(self) -> None:
        super().__init__()
        self.pick = nn.Conv3d(3, 3, 1, bias=False)
        self.pick.weight.data = torch.diag(torch.tensor([1.0, 1.0, 0.0])).view(3, 3, 1, 1, 1)

    def feature_map(self, clips: Tensor) -> Tensor:
        picked: Tensor = self.pick(clips)
        return picked


def batch_of(clips: Tensor, rows: Sequence[int]) -> ClipBatch:
    numbers = torch.tensor(list(rows))
    return ClipBatch(
        clips=clips,
        indices=torch.zeros(*clips.shape[:2], clips.shape[3], dtype=torch.int64),
        labels=torch.zeros_like(numbers),
        rows=numbers,
        videos=numbers,
        positions=numbers,
    )


def test_the_brightest_videos_stand_under_the_unit_that_looks_for_them() -> None:
    rng = np.random.default_rng(0)
    clips = torch.from_numpy(rng.random((8, 2, 3, 2, 6, 5), dtype=np.float32))
    rows = list(range(100, 108))
    clips[3, 1, 0, 1, 2, 4] = 9.0  # red: video 103, its second clip, frame 1, row 2, column 4
    clips[6, 0, 0, 0, 5, 0] = 7.0  # red: video 106
    clips[1, 0, 1, 0, 0, 3] = 8.0  # green: video 101
    asked: list[Sequence[int] | None] = []

    def load(wanted: Sequence[int] | None) -> Iterable[ClipBatch]:
        asked.append(wanted)
        chosen = [number for number, row in enumerate(rows) if wanted is None or row in wanted]
        for start in range(0, len(chosen), 3):
            part = chosen[start : start + 3]
            yield batch_of(clips[part], [rows[number] for number in part])

    found = top_activations(Brightness(), load, [FEATURE_MAP, "pick"], num_units=2, top=2)
    assert [unit.number for unit in found[FEATURE_MAP]] == [unit.number for unit in found["pick"]]
    units = {unit.number: unit for unit in found["pick"]}
    assert set(units) == {0, 1}
    first, second = units[0].clips
    assert (first.row, first.value, first.position, first.box) == (103, 9.0, (1, 2, 4), (1, 2, 2, 3, 4, 5))
    assert torch.equal(first.clip, clips[3, 1])
    assert (second.row, second.value, second.box) == (106, 7.0, (0, 1, 5, 6, 0, 1))
    assert units[1].clips[0].row == 101
    assert units[0].mean == pytest.approx(clips[:, :, 0].amax(dim=(1, 2, 3, 4)).mean())
    # The second time only the videos that are shown are read.
    shown = {clip.row for unit in found["pick"] for clip in unit.clips}
    assert asked[0] is None and len(asked) == 2
    assert shown <= set(asked[1] or []) and len(asked[1] or []) < len(rows)


def test_maps_of_single_frames_are_put_together_to_clips() -> None:
    class Frames(Backbone):
        feature_dim = 2

        def __init__(self) -> None:
            super().__init__()
            self.image = nn.Conv2d(3, 2, 3, padding=1)

        def feature_map(self, clips: Tensor) -> Tensor:
            images = self.image(clips.transpose(1, 2).flatten(0, 1))
            maps: Tensor = images.unflatten(0, (len(clips), -1)).transpose(1, 2)
            return maps

    torch.manual_seed(0)
    network, clip = Frames().eval(), torch.randn(3, 5, 8, 8)
    assert receptive_field(network, clip, layer="image", unit=1) == receptive_field(
        network, clip, layer=FEATURE_MAP, unit=1
    )
    _, (frame, _, _), box = receptive_field(network, clip, layer="image", unit=1)
    assert box is not None and box[:2] == (frame, frame + 1)


def test_the_default_is_the_last_map_and_a_convolution_in_the_middle() -> None:
    network = R3D(widths=(4, 8, 8), blocks_per_stage=(1, 1, 1))
    last, middle = default_layers(network, torch.zeros(1, 3, 4, 32, 32))
    assert last == FEATURE_MAP
    layer = dict(network.named_modules())[middle]
    assert isinstance(layer, nn.Conv3d) and layer.kernel_size == (3, 3, 3)
    assert middle.startswith("stages")


def test_a_convolution_of_attention_heads_is_no_default() -> None:
    class Heads(Stack):
        def __init__(self) -> None:
            super().__init__(rectified=False)
            self.pool = nn.Conv3d(3, 3, 3)

        def feature_map(self, clips: Tensor) -> Tensor:
            maps = super().feature_map(clips)
            self.pool(maps.unflatten(1, (2, 3)).flatten(0, 1).repeat(1, 1, 3, 1, 1))
            return maps

    assert default_layers(Heads(), torch.randn(1, 3, 9, 21, 23)) == [FEATURE_MAP, "layers.1"]


@pytest.mark.parametrize("layer", ["stages.9", ""])
def test_a_layer_that_is_not_there_is_refused(layer: str) -> None:
    network = Stack(rectified=False)
    with pytest.raises(InputError, match=r"is no layer of Stack; take feature_map or .*layers\.0"):
        receptive_field(network, torch.zeros(3, 9, 21, 23), layer=layer, unit=0)


def test_a_layer_without_places_is_refused() -> None:
    class Pooled(Stack):
        def __init__(self) -> None:
            super().__init__(rectified=False)
            self.flat = nn.Flatten()

        def feature_map(self, clips: Tensor) -> Tensor:
            maps = super().feature_map(clips)
            self.flat(maps)
            return maps

    with pytest.raises(InputError, match=r"--layers=flat gives .* no map \[N, D, t, h, w\]"):
        receptive_field(Pooled(), torch.zeros(3, 9, 21, 23), layer="flat", unit=0)
