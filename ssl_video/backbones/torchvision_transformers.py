"""torchvision's video transformers without their classifier, untrained, in any size: MViT v2 and Video Swin."""

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models.video import mvit, swin_transformer

from ssl_video.backbones.base import Backbone


class MViT(Backbone):
    """MViT v2 (Li et al., CVPR 2022) as built by torchvision; MViTv2-S with the default sizes, D = 768.

    Positions are relative and interpolated, so clips may have other sizes than `num_frames` and `size`, which only
    fix the size of the learnt tables. The class token takes part in the attention, but the feature map, and hence the
    features, are those of the other tokens (torchvision's classifier reads the class token).
    """

    # torchvision works out positions and windows with Python's numbers, which a graph keeps as they were.
    traces_any_size = False

    def __init__(
        self,
        *,
        blocks_per_stage: Sequence[int] = (1, 2, 11, 2),
        embed_dim: int = 96,
        num_heads: int = 1,
        key_stride: int = 8,
        num_frames: int = 16,
        size: int = 224,
        stochastic_depth: float = 0.2,
    ) -> None:
        """Build the network.

        Args:
            blocks_per_stage: attention blocks in each stage; every stage but the first halves height and width.
            embed_dim: channels of the first stage; each stage doubles them.
            num_heads: attention heads of the first stage; each stage doubles them.
            key_stride: stride in space of the first stage's keys and values; each stage halves it, down to 1.
            num_frames: T of the clips that the tables of relative positions are made for.
            size: H and W of them.
            stochastic_depth: share of samples for which the last block is left out in training (linear from 0).

        Raises:
            ValueError: sizes that don't describe a network.
        """
        super().__init__()
        if len(blocks_per_stage) < 1 or min(blocks_per_stage) < 1 or sum(blocks_per_stage) < 2:
            raise ValueError(
                f"blocks_per_stage={list(blocks_per_stage)} must be numbers of at least 1 and 2 in all; one per stage."
            )
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim={embed_dim} must be a multiple of num_heads={num_heads}; heads share it.")
        if num_frames < 2 or size < 2 ** (len(blocks_per_stage) + 1):
            raise ValueError(
                f"num_frames={num_frames} and size={size} must be at least 2 and {2 ** (len(blocks_per_stage) + 1)}: "
                "the network halves time once, and space two times and once more in each stage but the first."
            )
        blocks = _mvit_blocks(blocks_per_stage, embed_dim=embed_dim, num_heads=num_heads, key_stride=key_stride)
        self.network = mvit.MViT(
            spatial_size=(size, size),
            temporal_size=num_frames,
            block_setting=blocks,
            residual_pool=True,
            residual_with_cls_embed=False,
            rel_pos_embed=True,
            proj_after_attn=True,
            stochastic_depth_prob=stochastic_depth,
        )
        self.network.head = nn.Identity()
        self.feature_dim = blocks[-1].output_channels

    def feature_map(self, clips: Tensor) -> Tensor:
        """Map clips [N,3,T,H,W] to [N,D,t,h,w], the tokens on their grid; by default T/2, H/32, W/32, rounded up."""
        self.check_clips(clips)
        patches: Tensor = self.network.conv_proj(clips)
        grid = (patches.shape[2], patches.shape[3], patches.shape[4])
        tokens: Tensor = self.network.pos_encoding(patches.flatten(2).transpose(1, 2))
        for block in self.network.blocks:
            tokens, grid = block(tokens, grid)
        tokens = self.network.norm(tokens)[:, 1:]
        features: Tensor = tokens.transpose(1, 2).unflatten(2, grid)
        return features


class Swin3D(Backbone):
    """Video Swin (Liu et al., CVPR 2022) as built by torchvision; Swin3D-T with the default sizes, D = 768.

    Clips may have any size: they are padded to whole patches and windows.
    """

    traces_any_size = False  # see MViT

    def __init__(
        self,
        *,
        blocks_per_stage: Sequence[int] = (2, 2, 6, 2),
        embed_dim: int = 96,
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window: Sequence[int] = (8, 7, 7),
        patch: Sequence[int] = (2, 4, 4),
        stochastic_depth: float = 0.1,
    ) -> None:
        """Build the network.

        Args:
            blocks_per_stage: attention blocks in each stage; every stage but the first halves height and width.
            embed_dim: channels of the first stage; each stage doubles them.
            num_heads: attention heads of each stage.
            window: patches of an attention window in time, height, width.
            patch: pixels of a patch in time, height, width.
            stochastic_depth: share of samples for which the last block is left out in training (linear from 0).

        Raises:
            ValueError: sizes that don't describe a network.
        """
        super().__init__()
        if len(blocks_per_stage) != len(num_heads) or min(blocks_per_stage, default=0) < 1 or sum(blocks_per_stage) < 2:
            raise ValueError(
                f"blocks_per_stage={list(blocks_per_stage)} and num_heads={list(num_heads)} must have equally many "
                "entries of at least 1, and 2 blocks in all; give one of both per stage."
            )
        if any(embed_dim * 2**stage % heads for stage, heads in enumerate(num_heads)):
            raise ValueError(
                f"num_heads={list(num_heads)} must divide the channels of their stages, embed_dim={embed_dim} doubled "
                "in each; heads share them."
            )
        if len(window) != 3 or len(patch) != 3:
            raise ValueError(
                f"window={list(window)} and patch={list(patch)} must be three numbers each: time, height, width."
            )
        self.network = swin_transformer.SwinTransformer3d(
            patch_size=list(patch),
            embed_dim=embed_dim,
            depths=list(blocks_per_stage),
            num_heads=list(num_heads),
            window_size=list(window),
            stochastic_depth_prob=stochastic_depth,
        )
        self.network.head = nn.Identity()
        self.feature_dim = self.network.num_features

    def feature_map(self, clips: Tensor) -> Tensor:
        """Map clips [N,3,T,H,W] to [N,D,t,h,w]; by default T/2, H/32, W/32, rounded up."""
        self.check_clips(clips)
        features: Tensor = self.network.features(self.network.pos_drop(self.network.patch_embed(clips)))
        features = self.network.norm(features)
        return features.permute(0, 4, 1, 2, 3)


def _mvit_blocks(
    blocks_per_stage: Sequence[int], *, embed_dim: int, num_heads: int, key_stride: int
) -> list[mvit.MSBlockConfig]:
    """Each block as torchvision describes it: the first of a stage doubles channels and heads and halves space."""
    blocks = []
    previous = embed_dim
    for stage, number in enumerate(blocks_per_stage):
        channels, stride = embed_dim * 2**stage, max(1, key_stride // 2**stage)
        for block in range(number):
            halve = stage > 0 and block == 0
            blocks.append(
                mvit.MSBlockConfig(
                    num_heads=num_heads * 2**stage,
                    input_channels=previous,
                    output_channels=channels,
                    kernel_q=[3, 3, 3],
                    kernel_kv=[3, 3, 3],
                    stride_q=[1, 2, 2] if halve else [1, 1, 1],
                    stride_kv=[1, stride, stride],
                )
            )
            previous = channels
    return blocks
