"""The video ViT: its size by closed form, its positions by NumPy, its attention against torch's own layer."""

import numpy as np
import pytest
import torch
from torch import nn

from ssl_video.backbones.vit import Attention, ViT, sin_cos_positions
from ssl_video.utils.errors import InputError


def tiny(**sizes: object) -> ViT:
    torch.manual_seed(0)
    return ViT(**{"embed_dim": 32, "depth": 2, "num_heads": 2, "tubelet": (2, 8, 8), **sizes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("width", "depth", "heads", "expected"),
    [(384, 12, 6, 21_884_544), (768, 12, 12, 86_236_416), (1024, 24, 16, 303_885_312)],
)
def test_number_of_parameters(width: int, depth: int, heads: int, expected: int) -> None:
    with torch.device("meta"):
        network = ViT(embed_dim=width, depth=depth, num_heads=heads)
        assert network(torch.empty(1, 3, 16, 224, 224)).shape == (1, width)
        assert network.feature_map(torch.empty(1, 3, 16, 224, 224)).shape == (1, width, 8, 14, 14)
    block = (3 * width * width + 3 * width) + (width * width + width) + (8 * width * width + 5 * width) + 4 * width
    assert (3 * 2 * 16 * 16 + 1) * width + depth * block + 2 * width == expected
    assert sum(weight.numel() for weight in network.parameters()) == expected


def positions_by_numpy(grid: tuple[int, int, int], dim: int) -> np.ndarray:
    rows = []
    for token in np.ndindex(*grid):
        row: list[float] = []
        for place, channels in zip(token, (dim // 4, 3 * dim // 8, 3 * dim // 8), strict=True):
            half = channels // 2
            row += [np.sin(place / 10000 ** (i / half)) for i in range(half)]
            row += [np.cos(place / 10000 ** (i / half)) for i in range(half)]
        rows.append(row)
    return np.array(rows)


def test_positions_against_numpy() -> None:
    found = sin_cos_positions((2, 3, 4), 32).numpy()
    np.testing.assert_allclose(found, positions_by_numpy((2, 3, 4), 32), atol=1e-6)
    assert len({tuple(row) for row in found.round(5).tolist()}) == 24  # every token another


def test_positions_follow_the_clip() -> None:
    """A token's position depends on where it is, not on how large the clip is."""
    small = sin_cos_positions((2, 2, 3), 32).view(2, 2, 3, 32)
    large = sin_cos_positions((4, 5, 6), 32).view(4, 5, 6, 32)
    torch.testing.assert_close(small, large[:2, :2, :3])
    network = tiny()
    assert network.feature_map(torch.rand(1, 3, 8, 32, 48)).shape == (1, 32, 4, 4, 6)
    assert network.feature_map(torch.rand(1, 3, 5, 20, 8)).shape == (1, 32, 2, 2, 1)  # whole tubelets only


def test_order_of_frames_matters() -> None:
    """Without positions the mean of the tokens would not see it."""
    network, clips = tiny().eval(), torch.rand(1, 3, 8, 16, 16)
    tubelets = clips.unflatten(2, (4, 2)).flip(2).flatten(2, 3)  # tubelets whole, their order reversed
    assert not torch.allclose(network(clips), network(tubelets), atol=1e-4)


def test_blocks_are_torchs_pre_norm_encoder_layers() -> None:
    network = tiny().eval()
    layer = nn.TransformerEncoderLayer(
        32, 2, 128, dropout=0.0, activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    ).eval()
    names = {
        "self_attn.in_proj_": "attn.qkv.",
        "self_attn.out_proj.": "attn.proj.",
        "linear1.": "mlp.fc1.",
        "linear2.": "mlp.fc2.",
        "norm1.": "norm1.",
        "norm2.": "norm2.",
    }
    own = network.blocks[0].state_dict()
    theirs = {}
    for name in layer.state_dict():
        prefix = next(known for known in names if name.startswith(known))
        theirs[name] = own[names[prefix] + name.removeprefix(prefix)]
    layer.load_state_dict(theirs)
    tokens = torch.randn(2, 9, 32)
    torch.testing.assert_close(network.blocks[0](tokens), layer(tokens), atol=1e-5, rtol=1e-4)


def test_features_are_the_mean_of_the_normed_tokens() -> None:
    network, clips = tiny().eval(), torch.rand(2, 3, 4, 16, 16)
    with torch.no_grad():
        patches = network.patch_embed(clips).flatten(2).transpose(1, 2)
        tokens = network.norm(network.blocks(patches + sin_cos_positions((2, 2, 2), 32)))
        torch.testing.assert_close(network(clips), tokens.mean(dim=1))
        # Token 1 x 4 + 0 x 2 + 1 stands at time 1, row 0, column 1.
        torch.testing.assert_close(network.feature_map(clips)[:, :, 1, 0, 1], tokens[:, 5])


def test_initialisation_of_the_parts_that_share_a_matrix() -> None:
    attention = Attention(64, 4)
    bound = (6 / 128) ** 0.5  # Xavier's for 64 to 64, not for 64 to 192
    for part in attention.qkv.weight.chunk(3):
        assert 0.98 * bound < part.abs().max() <= bound
    network = tiny()
    bound = (6 / (3 * 2 * 8 * 8 + 32)) ** 0.5
    assert 0.98 * bound < network.patch_embed.proj.weight.abs().max() <= bound


def test_a_frozen_patch_embedding_gets_no_gradient_and_all_else_does() -> None:
    for frozen in (True, False):
        network = tiny(freeze_patch_embedding=frozen)
        (network(torch.rand(2, 3, 4, 16, 16)) * torch.randn(32)).sum().backward()
        without = [name for name, weight in network.named_parameters() if weight.grad is None]
        assert without == (["patch_embed.proj.weight", "patch_embed.proj.bias"] if frozen else [])
        assert all(weight.grad is None or weight.grad.any() for weight in network.parameters())


def test_clips_and_sizes_that_are_refused() -> None:
    with pytest.raises(InputError, match="num_frames=1 must be at least 2"):
        tiny()(torch.rand(1, 3, 1, 16, 16))
    with pytest.raises(InputError, match="at least 8x8"):
        tiny()(torch.rand(1, 3, 2, 16, 7))
    with pytest.raises(ValueError, match="multiple of 16"):
        tiny(embed_dim=40)
    with pytest.raises(ValueError, match="num_heads=3"):
        tiny(num_heads=3)
    with pytest.raises(ValueError, match="three numbers"):
        tiny(tubelet=(8, 8))
