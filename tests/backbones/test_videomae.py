"""VideoMAE: equal to Hugging Face's class, and, without it, to numbers that it gave."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import Tensor, nn

from ssl_video.backbones.videomae import VideoMAE, numbered_positions
from ssl_video.backbones.weights import load_tensors, load_weights, match_tensors
from ssl_video.utils.errors import InputError
from support.weights import fill

CONF = Path(__file__).parents[2] / "conf" / "backbone"
SMALL: dict[str, Any] = {"embed_dim": 24, "depth": 2, "num_heads": 3, "mlp_features": 40, "size": 32}


def their_config(*, size: int = 32, frames: int = 4, pooled: bool = False, **sizes: int) -> Any:
    from transformers import VideoMAEConfig

    sizes = {"embed_dim": 24, "depth": 2, "num_heads": 3, "mlp_features": 40, **sizes}
    return VideoMAEConfig(
        image_size=size,
        num_frames=frames,
        hidden_size=sizes["embed_dim"],
        num_hidden_layers=sizes["depth"],
        num_attention_heads=sizes["num_heads"],
        intermediate_size=sizes["mlp_features"],
        use_mean_pooling=pooled,
        num_labels=5,
    )


def clips(frames: int = 4, size: int = 32) -> Tensor:
    places = torch.arange(2 * 3 * frames * size**2, dtype=torch.float64)
    return (0.731 * places).sin().mul(places.mul(0.0123).cos()).float().view(2, 3, frames, size, size)


def published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names in the files on the hub, which are those of transformers before version 5."""
    names = {".query.bias": ".q_bias", ".value.bias": ".v_bias"}
    renamed = {}
    for name, tensor in state.items():
        for new, old in names.items():
            name = name.replace(new, old)
        renamed[name] = tensor
    assert any(name.endswith(".q_bias") for name in renamed)
    return renamed


# --- against Hugging Face ---------------------------------------------------------------------------------------------


@pytest.mark.oracles
@pytest.mark.parametrize("naming", [dict, published])
@torch.no_grad()
def test_tokens_are_those_of_transformers(naming: Any) -> None:
    from transformers import VideoMAEModel

    theirs = VideoMAEModel(their_config()).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    ours = VideoMAE(**SMALL).eval()
    loaded = load_tensors(ours, naming(theirs.state_dict()), source="theirs")
    assert (loaded.missing, loaded.matched) == ([], loaded.total)
    expected = theirs(clips().transpose(1, 2)).last_hidden_state
    found = ours.feature_map(clips())
    assert found.shape == (2, 24, 2, 2, 2)
    torch.testing.assert_close(found.flatten(2).transpose(1, 2), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours(clips()), expected.mean(dim=1), atol=1e-5, rtol=1e-5)


@pytest.mark.oracles
@torch.no_grad()
def test_features_of_fine_tuned_weights_are_what_their_classifier_reads() -> None:
    from transformers import VideoMAEForVideoClassification

    theirs = VideoMAEForVideoClassification(their_config(pooled=True)).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    ours = VideoMAE(**SMALL, norm_after_pooling=True).eval()
    loaded = load_tensors(ours, published(theirs.state_dict()), source="theirs")
    assert loaded.missing == []
    assert loaded.unexpected == ["classifier.weight", "classifier.bias"]
    logits = theirs(clips().transpose(1, 2)).logits
    torch.testing.assert_close(theirs.classifier(ours(clips())), logits, atol=1e-5, rtol=1e-5)


@pytest.mark.oracles
@pytest.mark.parametrize("kind", ["VideoMAEForPreTraining", "VideoMAEForVideoClassification"])
@pytest.mark.parametrize("size", ["s", "b", "l"])
def test_each_tensor_of_the_published_sizes_has_its_place(size: str, kind: str) -> None:
    import transformers

    pooled = kind == "VideoMAEForVideoClassification"
    node = OmegaConf.load(CONF / f"videomae_{size}{'_finetuned' if pooled else ''}.yaml")
    with torch.device("meta"):
        ours = instantiate(node)
        assert isinstance(ours, VideoMAE)
        sizes = {key: node[key] for key in ("embed_dim", "depth", "num_heads", "mlp_features")}
        theirs = getattr(transformers, kind)(their_config(size=224, frames=16, pooled=pooled, **sizes))
    found = match_tensors(ours, published(theirs.state_dict()))
    assert (found.matched, found.missing) == (found.total, [])
    heads = ("classifier.", "decoder.", "encoder_to_decoder.", "mask_token")
    assert [name for name in found.unexpected if not name.startswith(heads)] == []


@pytest.mark.slow
@pytest.mark.oracles
@pytest.mark.parametrize("size", ["s", "b", "l"])
@torch.no_grad()
def test_the_published_sizes_give_the_same_tokens(size: str) -> None:
    from transformers import VideoMAEModel

    node = OmegaConf.load(CONF / f"videomae_{size}.yaml")
    sizes = {key: node[key] for key in ("embed_dim", "depth", "num_heads", "mlp_features")}
    theirs = VideoMAEModel(their_config(size=224, frames=2, **sizes)).eval()
    ours = instantiate(node).eval()
    assert load_tensors(ours, theirs.state_dict(), source="theirs").missing == []
    x = clips(frames=2, size=224)[:1]
    expected = theirs(x.transpose(1, 2)).last_hidden_state
    torch.testing.assert_close(ours.feature_map(x).flatten(2).transpose(1, 2), expected, atol=1e-5, rtol=1e-5)


# What transformers 5.23 gave for `fill`ed weights: the first clip's first features.
GOLDEN = {
    False: [0.8563656, -0.3517967, -0.1430878, -0.2470015],
    True: [3.6200528, -0.4470799, -0.4498892, -0.4984448],
}


@pytest.mark.parametrize("pooled", [False, True])
@torch.no_grad()
def test_features_are_those_that_transformers_once_gave(pooled: bool) -> None:
    ours = VideoMAE(**SMALL, norm_after_pooling=pooled).eval()
    fill(ours)
    torch.testing.assert_close(ours(clips())[0, :4], torch.tensor(GOLDEN[pooled]), atol=1e-4, rtol=1e-4)


@pytest.mark.oracles
@pytest.mark.parametrize("pooled", [False, True])
@torch.no_grad()
def test_the_numbers_are_those_of_transformers(pooled: bool) -> None:
    from transformers import VideoMAEForVideoClassification, VideoMAEModel

    ours = VideoMAE(**SMALL, norm_after_pooling=pooled)
    fill(ours)
    kind = VideoMAEForVideoClassification if pooled else VideoMAEModel
    theirs = kind(their_config(pooled=pooled)).eval()
    state = {ours.other_names(name)[0]: tensor for name, tensor in ours.state_dict().items()}
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert (missing, unexpected) == (["classifier.weight", "classifier.bias"] if pooled else [], [])
    if pooled:
        theirs.classifier = nn.Identity()
        features = theirs(clips().transpose(1, 2)).logits
    else:
        features = theirs(clips().transpose(1, 2)).last_hidden_state.mean(dim=1)
    torch.testing.assert_close(features[0, :4], torch.tensor(GOLDEN[pooled]), atol=1e-4, rtol=1e-4)


# --- by itself --------------------------------------------------------------------------------------------------------


def test_positions_number_the_tokens_through() -> None:
    table = numbered_positions(50, 6)
    for position in (0, 1, 49):
        for channel in range(6):
            angle = position / 10000 ** (2 * (channel // 2) / 6)
            expected = math.sin(angle) if channel % 2 == 0 else math.cos(angle)
            assert table[position, channel].item() == pytest.approx(expected, abs=1e-6)


@torch.no_grad()
def test_the_order_of_frames_and_patches_counts() -> None:
    ours = VideoMAE(**SMALL).eval()
    fill(ours)
    features = ours(clips())
    assert not torch.allclose(features, ours(clips()[:, :, [2, 3, 0, 1]]), atol=1e-3)
    assert not torch.allclose(features, ours(clips().roll(16, dims=3)), atol=1e-3)


@torch.no_grad()
def test_a_shorter_clip_has_the_positions_of_the_first_frames() -> None:
    """Without attention between frames the first tokens stay the same: here without any block's effect."""
    ours = VideoMAE(**SMALL).eval()
    for block in ours.blocks:
        nn.init.zeros_(block.attn.proj.weight)
    long, short = ours.feature_map(clips()), ours.feature_map(clips()[:, :, :2])
    torch.testing.assert_close(long[:, :, :1], short)


def test_clips_of_another_size_are_refused() -> None:
    ours = VideoMAE(**SMALL)
    with pytest.raises(InputError, match=r"clips of 32x48 pixels must be 32x32 for VideoMAE, .* set backbone\.size"):
        ours(torch.zeros(1, 3, 4, 32, 48))
    with pytest.raises(InputError, match="num_frames=1 must be at least 2"):
        ours(torch.zeros(1, 3, 1, 32, 32))
    with pytest.raises(InputError, match=r"must have the 5 dimensions"):
        ours(torch.zeros(3, 4, 32, 32))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_heads": 5}, "embed_dim=24 must be even and a multiple of num_heads=5"),
        ({"depth": 0}, "depth=0 at least 1"),
        ({"size": 40}, "size=40 must be a multiple of 16"),
    ],
)
def test_sizes_that_describe_no_network(change: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        VideoMAE(**{**SMALL, **change})


def test_a_file_without_the_biases_is_refused(tmp_path: Path) -> None:
    """Some versions of transformers load the published files so, with a warning: a fifth of the tensors stays zero."""
    source = VideoMAE(**SMALL)
    names = {name: source.other_names(name)[1] for name in source.state_dict()}
    state = {f"videomae.{names[name]}": tensor for name, tensor in source.state_dict().items()}
    save_file(state, tmp_path / "whole.safetensors")
    assert load_weights(VideoMAE(**SMALL), tmp_path / "whole.safetensors").missing == []
    kept = {name: tensor for name, tensor in state.items() if not name.endswith(("q_bias", "v_bias"))}
    save_file(kept, tmp_path / "part.safetensors")
    with pytest.raises(InputError, match=r"has 30 of the 34 tensors of VideoMAE.*blocks\.0\.attn\.query\.bias"):
        load_weights(VideoMAE(**SMALL), tmp_path / "part.safetensors")


def test_gradients_reach_every_parameter() -> None:
    ours = VideoMAE(**SMALL)
    ours(clips()).square().sum().backward()
    assert [name for name, p in ours.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
