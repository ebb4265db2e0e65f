"""V-JEPA 2's encoder as Hugging Face publishes it: a video ViT whose attention turns by time, row and column."""

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_video.backbones.base import Backbone
from ssl_video.backbones.vit import MLP, PatchEmbedding

# Cosines and sines [L, head channels] of a clip's tokens.
Rotation = tuple[Tensor, Tensor]


class VJEPA2(Backbone):
    """Encoder of V-JEPA 2 (Assran et al., arXiv 2506.09985) with rotary attention in three dimensions.

    It computes what `VJEPA2Model` of Hugging Face transformers gives as the encoder's last hidden state. There are no
    positions at the tokens: in each head, a third of the channels of queries and keys is turned by the time, a third by
    the row and a third by the column (what is left over is not turned), so clips may have any size from one tubelet
    up. Frames and pixels beyond the last whole tubelet are not seen. Linear layers start from a normal distribution of
    deviation 0.02, cut off at 2. ViT-L has 303,885,312 parameters.
    """

    def __init__(
        self,
        *,
        embed_dim: int = 1024,
        depth: int = 24,
        num_heads: int = 16,
        mlp_features: int = 4096,
        tubelet: Sequence[int] = (2, 16, 16),
    ) -> None:
        """Build the network.

        Args:
            embed_dim: D, channels of a token; a multiple of num_heads with at least 6 channels a head.
            depth: attention blocks.
            num_heads: attention heads.
            mlp_features: inner channels of a block's MLP.
            tubelet: frames, height and width of what becomes one token.

        Raises:
            ValueError: sizes that don't describe a network.
        """
        super().__init__()
        if embed_dim % num_heads or embed_dim < 6 * num_heads:
            raise ValueError(
                f"embed_dim={embed_dim} must be a multiple of num_heads={num_heads} and give each head 6 channels or "
                "more, two for each of time, row and column; for example 1024 and 16."
            )
        if len(tubelet) != 3 or min(tubelet) < 1 or depth < 1:
            raise ValueError(
                f"tubelet={list(tubelet)} must be three numbers of at least 1 (frames, height, width), and "
                f"depth={depth} at least 1; for example (2, 16, 16) and 24."
            )
        self.feature_dim = embed_dim
        self.head_channels = embed_dim // num_heads
        self.min_frames, self.min_size = tubelet[0], max(tubelet[1:])
        self.patch_embed = PatchEmbedding(self.in_channels, embed_dim, tubelet=(tubelet[0], tubelet[1], tubelet[2]))
        self.blocks = nn.ModuleList(Block(embed_dim, num_heads, mlp_features=mlp_features) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv3d):
                nn.init.trunc_normal_(module.weight, std=0.02, a=-2 * 0.02, b=2 * 0.02)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def feature_map(self, clips: Tensor) -> Tensor:
        """Map clips [N,3,T,H,W] to the tokens on their grid [N,D,t,h,w], by default T/2, H/16, W/16."""
        self.check_clips(clips)
        patches = self.patch_embed(clips)
        grid = (patches.shape[2], patches.shape[3], patches.shape[4])
        cosines, sines = rotation(grid, self.head_channels)
        turned = (cosines.to(patches), sines.to(patches))
        tokens = patches.flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens, turned)
        features: Tensor = self.norm(tokens).transpose(1, 2).unflatten(2, grid)
        return features

    def other_names(self, name: str) -> tuple[str, ...]:
        """Hugging Face's names, behind `encoder.`; its predictor has some of them too, of other shapes."""
        name = name.replace("patch_embed.", "embeddings.patch_embeddings.")
        name = re.sub(r"^norm\.", "layernorm.", name)
        return (re.sub(r"^blocks\.", "layer.", name).replace(".attn.", ".attention."),)


class Block(nn.Module):
    """Attention and MLP, each behind a norm and added to its input."""

    def __init__(self, embed_dim: int, num_heads: int, *, mlp_features: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.attn = RotaryAttention(embed_dim, num_heads)
        self.norm2 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.mlp = MLP(embed_dim, mlp_features)

    def forward(self, tokens: Tensor, turned: Rotation) -> Tensor:
        """Map [N,L,D] to the same shape."""
        tokens = tokens + self.attn(self.norm1(tokens), turned)
        result: Tensor = tokens + self.mlp(self.norm2(tokens))
        return result


class RotaryAttention(nn.Module):
    """Every token looks at all tokens of its clip, queries and keys turned by where they are."""

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(embed_dim, embed_dim)
        self.key = nn.Linear(embed_dim, embed_dim)
        self.value = nn.Linear(embed_dim, embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)

    def forward(self, tokens: Tensor, turned: Rotation) -> Tensor:
        """Map [N,L,D] to the same shape."""
        query, key, value = (
            layer(tokens).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        attended = functional.scaled_dot_product_attention(rotate(query, turned), rotate(key, turned), value)
        result: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return result


def rotate(channels: Tensor, turned: Rotation) -> Tensor:
    """Turn the channels [..., L, head channels] of each token, by pairs of neighbours."""
    cosines, sines = turned
    first, second = channels.unflatten(-1, (-1, 2)).unbind(-1)
    quarter_turn = torch.stack([-second, first], dim=-1).flatten(-2)
    return channels * cosines + quarter_turn * sines


def rotation(grid: tuple[int, int, int], head_channels: int) -> Rotation:
    """Cosines and sines [t*h*w, head channels] of the angles of a grid, tokens in the order time, height, width.

    Each axis has 2 floor(head channels / 6) channels; the rest has angle 0. The angle of position p at frequency i is
    p / 10000^(i / number). As in the published code, the frequencies of an axis stand one after the other and then once
    more, while the channels are turned in pairs of neighbours: so a pair has two frequencies and is not quite rotated.
    The weights have learnt with that.
    """
    number = head_channels // 6
    frequencies = 10000.0 ** -(torch.arange(number) / number)
    angles = torch.zeros(*grid, head_channels)
    for axis, length in enumerate(grid):
        own = (torch.arange(length)[:, None] * frequencies).repeat(1, 2)
        shape = [1, 1, 1, 2 * number]
        shape[axis] = length
        angles[..., 2 * number * axis : 2 * number * (axis + 1)] = own.view(shape)
    angles = angles.flatten(0, 2)
    return angles.cos(), angles.sin()
