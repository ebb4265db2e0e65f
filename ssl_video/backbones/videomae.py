"""VideoMAE's encoder as Hugging Face publishes it: the video ViT that its weights are made for."""

import re

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_video.backbones.base import Backbone
from ssl_video.backbones.vit import MLP, PatchEmbedding
from ssl_video.utils.errors import InputError

FRAMES, PATCH = 2, 16
EPS = 1e-12  # of the norms, as in the published configurations

# Hugging Face's names of what is ours, layer by layer; all of the encoder stand behind `videomae.`.
_LAYERS = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.query": "attention.attention.query",
    "attn.key": "attention.attention.key",
    "attn.value": "attention.attention.value",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


class VideoMAE(Backbone):
    """Encoder of VideoMAE (Tong et al., NeurIPS 2022): all tubelets of 2x16x16 pixels, none masked.

    It computes what `VideoMAEModel` of Hugging Face transformers does. Unlike our `ViT`, query, key and value are
    layers of their own, keys have no bias, and the sines and cosines of the positions number all tokens of a clip
    through: row after row, frame after frame. So frames must have `size` pixels. Any number of frames is taken; the
    published weights have seen 16. Linear layers start from Xavier's uniform range. ViT-B has 86,227,200 parameters.
    """

    min_frames = FRAMES

    def __init__(
        self,
        *,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_features: int = 3072,
        size: int = 224,
        norm_after_pooling: bool = False,
    ) -> None:
        """Build the network.

        Args:
            embed_dim: D, channels of a token; an even multiple of num_heads.
            depth: attention blocks.
            num_heads: attention heads.
            mlp_features: inner channels of a block's MLP.
            size: height and width of the frames; a multiple of 16.
            norm_after_pooling: normalise the mean of the tokens instead of each token, as the fine-tuned networks do;
                the feature map is then that of tokens without a norm.

        Raises:
            ValueError: sizes that don't describe a network.
        """
        super().__init__()
        if depth < 1 or embed_dim < 1 or embed_dim % num_heads or embed_dim % 2:
            raise ValueError(
                f"embed_dim={embed_dim} must be even and a multiple of num_heads={num_heads}, which share it, and "
                f"depth={depth} at least 1; for example 768, 12 and 12."
            )
        if size < PATCH or size % PATCH:
            raise ValueError(f"size={size} must be a multiple of {PATCH}, the side of a patch; for example 224.")
        self.feature_dim, self.min_size = embed_dim, size
        self.patch_embed = PatchEmbedding(self.in_channels, embed_dim, tubelet=(FRAMES, PATCH, PATCH))
        self.blocks = nn.Sequential(*(Block(embed_dim, num_heads, mlp_features=mlp_features) for _ in range(depth)))
        # The published fine-tuned networks have PyTorch's default here.
        self.norm = nn.LayerNorm(embed_dim, eps=1e-5 if norm_after_pooling else EPS)
        self.norm_after_pooling = norm_after_pooling

    def feature_map(self, clips: Tensor) -> Tensor:
        """Map clips [N,3,T,size,size] to the tokens on their grid [N,D,T/2,size/16,size/16]."""
        self.check_clips(clips)
        patches = self.patch_embed(clips)
        tokens = patches.flatten(2).transpose(1, 2)
        positions = numbered_positions(tokens.shape[1], self.feature_dim).to(tokens)
        tokens = self.blocks(tokens + positions)
        if not self.norm_after_pooling:
            tokens = self.norm(tokens)
        features: Tensor = tokens.transpose(1, 2).unflatten(2, patches.shape[2:])
        return features

    def forward(self, clips: Tensor) -> Tensor:
        """Map clips [N,3,T,size,size] to features [N,D]: the mean of the tokens, normalised before or after."""
        features = super().forward(clips)
        return self.norm(features) if self.norm_after_pooling else features

    def check_clips(self, clips: Tensor) -> None:
        """Refuse clips that this backbone cannot take, also larger ones than it has positions for.

        Raises:
            InputError: see `Backbone.check_clips`.
        """
        size = list(clips.shape[3:])
        if clips.ndim == 5 and size != [self.min_size, self.min_size]:
            raise InputError(
                f"clips of {size[0]}x{size[1]} pixels must be {self.min_size}x{self.min_size} for VideoMAE, which "
                "numbers the patches of a frame through; crop to that, or set backbone.size where it is to be trained."
            )
        super().check_clips(clips)

    def other_names(self, name: str) -> tuple[str, ...]:
        """Hugging Face's names, first with the biases of today's classes, then with those of the published files."""
        head = "fc_norm" if self.norm_after_pooling else "videomae.layernorm"
        name = re.sub(r"^norm\.", f"{head}.", name)
        name = name.replace("patch_embed.proj.", "videomae.embeddings.patch_embeddings.projection.")
        block = re.match(r"blocks\.(\d+)\.(.*)\.(weight|bias)$", name)
        if block:
            name = f"videomae.encoder.layer.{block[1]}.{_LAYERS[block[2]]}.{block[3]}"
        published = re.sub(r"attention\.(query|value)\.bias$", lambda found: f"attention.{found[1][0]}_bias", name)
        namings = (name, published)
        # A VideoMAEModel saved by itself has no prefix, which the loading finds; then there is no fc_norm.
        return namings if self.norm_after_pooling else tuple(one.removeprefix("videomae.") for one in namings)


class Block(nn.Module):
    """Attention and MLP, each behind a norm and added to its input."""

    def __init__(self, embed_dim: int, num_heads: int, *, mlp_features: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim, eps=EPS)
        self.attn = Attention(embed_dim, num_heads)
        self.norm2 = nn.LayerNorm(embed_dim, eps=EPS)
        self.mlp = MLP(embed_dim, mlp_features)

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
        self.query = nn.Linear(embed_dim, embed_dim)
        # A bias here would add the same to all scores of a query, which the softmax takes out again.
        self.key = nn.Linear(embed_dim, embed_dim, bias=False)
        self.value = nn.Linear(embed_dim, embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)
        for layer in (self.query, self.key, self.value, self.proj):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map [N,L,D] to the same shape."""
        query, key, value = (
            layer(tokens).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        attended = functional.scaled_dot_product_attention(query, key, value)
        result: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return result


def numbered_positions(length: int, dim: int) -> Tensor:
    """Positions [length, dim] of tokens 0, 1, …: sines at even channels, cosines at odd ones (Vaswani et al., 2017).

    Computed in double precision, as the original's table: the angles of a thousandth token leave single precision few
    digits.
    """
    frequencies = 10000.0 ** -(torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1).float()
