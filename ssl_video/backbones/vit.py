"""A plain video ViT: joint attention over space-time tubelets, with fixed positions."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_video.backbones.base import Backbone


class ViT(Backbone):
    """Video ViT as the encoder of VideoMAE (Tong et al., NeurIPS 2022): tubelets, pre-norm blocks, a norm at the end.

    Features are the mean of all tokens; there is no class token. Positions are fixed sines and cosines of time, height
    and width, computed for the grid of the clip at hand (VideoMAE numbers the tokens of one grid through), so clips
    may have any size from one tubelet up; frames and pixels beyond the last whole tubelet are not seen. Linear layers
    start from Xavier's uniform range, query, key and value and the tubelet embedding each from their own, as in MoCo v3
    (Chen et al., ICCV 2021). Layers have timm's names. ViT-B has 86,236,416 parameters.
    """

    def __init__(
        self,
        *,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: int = 4,
        tubelet: Sequence[int] = (2, 16, 16),
        freeze_patch_embedding: bool = False,
        in_channels: int = 3,
    ) -> None:
        """Build the network.

        Args:
            embed_dim: D, channels of a token; a multiple of 16 (positions) and of num_heads.
            depth: attention blocks.
            num_heads: attention heads.
            mlp_ratio: inner channels of a block's MLP, in multiples of embed_dim.
            tubelet: frames, height and width of what becomes one token.
            freeze_patch_embedding: keep the tubelet embedding at its random start (MoCo v3: it makes training stable).
            in_channels: C, channels of a clip.

        Raises:
            ValueError: sizes that don't describe a network.
        """
        super().__init__()
        if embed_dim < 16 or embed_dim % 16 or embed_dim % num_heads:
            raise ValueError(
                f"embed_dim={embed_dim} must be a multiple of 16 and of num_heads={num_heads}: positions share it "
                "among three axes, attention among heads."
            )
        if len(tubelet) != 3 or min(tubelet) < 1 or depth < 1:
            raise ValueError(
                f"tubelet={list(tubelet)} must be three numbers of at least 1 (frames, height, width), and "
                f"depth={depth} at least 1; for example (2, 16, 16) and 12."
            )
        self.in_channels = in_channels
        self.feature_dim = embed_dim
        self.min_frames, self.min_size = tubelet[0], max(tubelet[1:])
        self.patch_embed = PatchEmbedding(in_channels, embed_dim, tubelet=(tubelet[0], tubelet[1], tubelet[2]))
        self.blocks = nn.Sequential(*(Block(embed_dim, num_heads, mlp_ratio=mlp_ratio) for _ in range(depth)))
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        if freeze_patch_embedding:
            self.patch_embed.requires_grad_(False)

    def feature_map(self, clips: Tensor) -> Tensor:
        """Map clips [N,C,T,H,W] to the tokens on their grid [N,D,t,h,w], by default T/2, H/16, W/16."""
        self.check_clips(clips)
        patches = self.patch_embed(clips)
        grid = (patches.shape[2], patches.shape[3], patches.shape[4])
        positions = sin_cos_positions(grid, self.feature_dim, device=clips.device).to(patches.dtype)
        tokens: Tensor = self.norm(self.blocks(patches.flatten(2).transpose(1, 2) + positions))
        features: Tensor = tokens.transpose(1, 2).unflatten(2, grid)
        return features


class PatchEmbedding(nn.Module):
    """One linear map of each tubelet's pixels."""

    def __init__(self, in_channels: int, embed_dim: int, *, tubelet: tuple[int, int, int]) -> None:
        super().__init__()
        self.proj = nn.Conv3d(in_channels, embed_dim, tubelet, stride=tubelet)
        bound = math.sqrt(6 / (in_channels * math.prod(tubelet) + embed_dim))
        nn.init.uniform_(self.proj.weight, -bound, bound)
        nn.init.zeros_(self.proj.bias)  # type: ignore[arg-type]

    def forward(self, clips: Tensor) -> Tensor:
        """Map clips [N,C,T,H,W] to [N,D,t,h,w]."""
        patches: Tensor = self.proj(clips)
        return patches


class Block(nn.Module):
    """Attention and MLP, each behind a norm and added to its input."""

    def __init__(self, embed_dim: int, num_heads: int, *, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.attn = Attention(embed_dim, num_heads)
        self.norm2 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.mlp = MLP(embed_dim, mlp_ratio * embed_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map [N,L,D] to the same shape."""
        tokens = tokens + self.attn(self.norm1(tokens))
        result: Tensor = tokens + self.mlp(self.norm2(tokens))
        return result


class Attention(nn.Module):
    """Every token looks at all tokens of its clip."""

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)
        for part in self.qkv.weight.detach().chunk(3):
            nn.init.xavier_uniform_(part)
        nn.init.xavier_uniform_(self.proj.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.proj.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map [N,L,D] to the same shape."""
        query, key, value = self.qkv(tokens).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value)
        result: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return result


class MLP(nn.Module):
    """Two linear layers with GELU between."""

    def __init__(self, embed_dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, hidden)
        self.fc2 = nn.Linear(hidden, embed_dim)
        for layer in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map [N,L,D] to the same shape."""
        result: Tensor = self.fc2(functional.gelu(self.fc1(tokens)))
        return result


def sin_cos_positions(grid: tuple[int, int, int], dim: int, *, device: torch.device | None = None) -> Tensor:
    """Positions [t*h*w, dim] of a grid, tokens in the order time, height, width.

    A quarter of the channels tells the time, three eighths each the row and the column (as MAE on video, Feichtenhofer
    et al., NeurIPS 2022); each axis has sines, then cosines, of position / 10000^(i / number).

    Args:
        grid: tokens in time, height, width.
        dim: channels, a multiple of 16.
        device: where the result lies.
    """
    codes = []
    for axis, (length, channels) in enumerate(zip(grid, (dim // 4, 3 * dim // 8, 3 * dim // 8), strict=True)):
        frequencies = 10000.0 ** -(torch.arange(channels // 2, device=device) / (channels // 2))
        angles = torch.arange(length, device=device)[:, None] * frequencies
        code = torch.cat([angles.sin(), angles.cos()], dim=1)
        shape = [1, 1, 1, channels]
        shape[axis] = length
        codes.append(code.view(shape).expand(*grid, channels))
    return torch.cat(codes, dim=3).flatten(0, 2)
