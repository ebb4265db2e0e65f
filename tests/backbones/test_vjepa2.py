"""V-JEPA 2: equal to Hugging Face's encoder, and, without it, to numbers that it gave."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from ssl_video.backbones.vjepa2 import VJEPA2, rotate, rotation
from ssl_video.backbones.weights import load_tensors, load_weights, match_tensors
from support.weights import fill, saved

CONF = Path(__file__).parents[2] / "conf" / "backbone"
SMALL: dict[str, Any] = {"embed_dim": 48, "depth": 2, "num_heads": 3, "mlp_features": 80}
SIZES = {
    "l": {},
    "h": {"embed_dim": 1280, "depth": 32, "mlp_features": 5120},
    "g": {"embed_dim": 1408, "depth": 40, "num_heads": 22, "mlp_features": 6144},
}


def their_model(ours: VJEPA2, *, size: int = 48, patch: int = 16) -> Any:
    from transformers import VJEPA2Config, VJEPA2Model

    block: Any = ours.blocks[0]
    config = VJEPA2Config(
        crop_size=size,
        patch_size=patch,
        hidden_size=ours.feature_dim,
        num_hidden_layers=len(ours.blocks),
        num_attention_heads=block.attn.num_heads,
        mlp_ratio=block.mlp.fc1.out_features / ours.feature_dim + 1e-9,  # they round down
        pred_hidden_size=24,
        pred_num_attention_heads=2,
        pred_num_hidden_layers=1,
    )
    return VJEPA2Model(config).eval()


def clips(frames: int = 6, size: int = 48) -> Tensor:
    places = torch.arange(2 * 3 * frames * size**2, dtype=torch.float64)
    return (0.731 * places).sin().mul(places.mul(0.0123).cos()).float().view(2, 3, frames, size, size)


# --- against Hugging Face ---------------------------------------------------------------------------------------------


@pytest.mark.oracles
@pytest.mark.parametrize("heads", [3, 2])  # of 16 channels, 4 of them not turned, and of 24
@pytest.mark.parametrize("prefix", ["", "vjepa2."])  # of the encoder, and of the classifier around it
@torch.no_grad()
def test_tokens_are_those_of_transformers(heads: int, prefix: str) -> None:
    ours = VJEPA2(**{**SMALL, "num_heads": heads}).eval()
    theirs = their_model(ours)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    state = {prefix + name: tensor for name, tensor in theirs.state_dict().items()}
    loaded = load_tensors(ours, state, source="theirs")
    assert (loaded.missing, loaded.matched) == ([], loaded.total)
    assert [name for name in loaded.unexpected if not name.startswith(f"{prefix}predictor.")] == []
    expected = theirs(clips().transpose(1, 2), skip_predictor=True).last_hidden_state
    found = ours.feature_map(clips())
    assert found.shape == (2, 48, 3, 3, 3)
    torch.testing.assert_close(found.flatten(2).transpose(1, 2), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours(clips()), expected.mean(dim=1), atol=1e-5, rtol=1e-5)


@pytest.mark.oracles
@pytest.mark.parametrize("size", ["l", "h", "g"])
def test_each_tensor_of_the_published_sizes_has_its_place(size: str) -> None:
    with torch.device("meta"):
        ours = VJEPA2(**SIZES[size])
        theirs = their_model(ours, size=256)
    found = match_tensors(ours, theirs.state_dict())
    assert (found.matched, found.missing) == (found.total, [])
    assert [name for name in found.unexpected if not name.startswith("predictor.")] == []


@pytest.mark.slow
@pytest.mark.oracles
@torch.no_grad()
def test_vit_l_gives_the_same_tokens() -> None:
    ours = instantiate(OmegaConf.load(CONF / "vjepa2_l.yaml")).eval()
    theirs = their_model(ours, size=256)
    assert load_tensors(ours, theirs.state_dict(), source="theirs").missing == []
    x = clips(frames=2, size=256)[:1]
    expected = theirs(x.transpose(1, 2), skip_predictor=True).last_hidden_state
    torch.testing.assert_close(ours.feature_map(x).flatten(2).transpose(1, 2), expected, atol=1e-5, rtol=1e-5)


# What transformers 5.23 gave for `fill`ed weights: the first clip's first features.
GOLDEN = [0.2328104, -0.0576702, 0.7320931, -0.0582563]


@torch.no_grad()
def test_features_are_those_that_transformers_once_gave() -> None:
    ours = VJEPA2(**SMALL).eval()
    fill(ours)
    torch.testing.assert_close(ours(clips())[0, :4], torch.tensor(GOLDEN), atol=1e-4, rtol=1e-4)


@pytest.mark.oracles
@torch.no_grad()
def test_the_numbers_are_those_of_transformers() -> None:
    ours = VJEPA2(**SMALL)
    fill(ours)
    theirs = their_model(ours)
    theirs.encoder.load_state_dict({ours.other_names(name)[0]: tensor for name, tensor in ours.state_dict().items()})
    features = theirs(clips().transpose(1, 2), skip_predictor=True).last_hidden_state.mean(dim=1)
    torch.testing.assert_close(features[0, :4], torch.tensor(GOLDEN), atol=1e-4, rtol=1e-4)


# --- by itself --------------------------------------------------------------------------------------------------------


def test_angles_follow_time_row_and_column() -> None:
    """16 channels: 4 for each axis, which have the two frequencies 1 and 1/100 twice, and 4 of angle 0."""
    cosines, sines = rotation((2, 3, 4), 16)
    assert cosines.shape == sines.shape == (24, 16)
    for time in range(2):
        for row in range(3):
            for column in range(4):
                token = (time * 3 + row) * 4 + column
                angles = [place * rate for place in (time, row, column) for rate in (1.0, 0.01, 1.0, 0.01)] + [0.0] * 4
                torch.testing.assert_close(cosines[token], torch.tensor([math.cos(a) for a in angles]))
                torch.testing.assert_close(sines[token], torch.tensor([math.sin(a) for a in angles]))


def test_pairs_of_neighbours_are_turned() -> None:
    quarter = (torch.zeros(1, 4), torch.ones(1, 4))
    assert rotate(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), quarter).tolist() == [[-2.0, 1.0, -4.0, 3.0]]
    none = (torch.ones(1, 4), torch.zeros(1, 4))
    assert rotate(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), none).tolist() == [[1.0, 2.0, 3.0, 4.0]]


@torch.no_grad()
def test_the_order_of_frames_and_patches_counts_and_only_by_attention() -> None:
    ours = VJEPA2(**SMALL).eval()
    fill(ours)
    shuffled, moved = clips()[:, :, [4, 5, 0, 1, 2, 3]], clips().roll(16, dims=3)
    assert not torch.allclose(ours(clips()), ours(shuffled), atol=1e-3)
    assert not torch.allclose(ours(clips()), ours(moved), atol=1e-3)
    for block in ours.blocks:
        nn.init.zeros_(block.attn.proj.weight)
    torch.testing.assert_close(ours(clips()), ours(shuffled))
    torch.testing.assert_close(ours(clips()), ours(moved))


@torch.no_grad()
def test_any_size_from_one_tubelet_up_and_left_over_pixels_are_not_seen() -> None:
    ours = VJEPA2(**SMALL).eval()
    assert ours.feature_map(torch.zeros(1, 3, 2, 16, 16)).shape == (1, 48, 1, 1, 1)
    assert ours.feature_map(torch.zeros(1, 3, 8, 32, 80)).shape == (1, 48, 4, 2, 5)
    torch.testing.assert_close(ours(clips(7, 50)), ours(clips(7, 50)[:, :, :6, :48, :48]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_heads": 5}, "embed_dim=48 must be a multiple of num_heads=5"),
        ({"num_heads": 12}, "give each head 6 channels or more"),
        ({"depth": 0}, "depth=0 at least 1"),
        ({"tubelet": (2, 16)}, r"tubelet=\[2, 16\] must be three numbers"),
    ],
)
def test_sizes_that_describe_no_network(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        VJEPA2(**{**SMALL, **change})


def test_files_with_the_predictor_whose_layers_have_the_same_names(tmp_path: Path) -> None:
    trained, fresh = VJEPA2(**SMALL), VJEPA2(**SMALL)
    small = VJEPA2(**{**SMALL, "embed_dim": 24, "depth": 3})
    state = {f"encoder.{trained.other_names(name)[0]}": tensor for name, tensor in trained.state_dict().items()}
    state |= {f"predictor.{small.other_names(name)[0]}": tensor for name, tensor in small.state_dict().items()}
    assert "encoder.layer.0.attention.query.weight" in state
    loaded = load_weights(fresh, saved(state, tmp_path, "pytorch_model.bin"))
    assert loaded.missing == []
    assert len(loaded.unexpected) == len(small.state_dict())
    assert all(torch.equal(fresh.state_dict()[name], tensor) for name, tensor in trained.state_dict().items())


def test_gradients_reach_every_parameter() -> None:
    ours = VJEPA2(**SMALL)
    ours(clips()).square().sum().backward()
    # A bias of the keys adds the same to all scores of a query, but for what turns it.
    assert [name for name, p in ours.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
