from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from ssl_video.data.transforms.contrastive import ContrastiveTransform
from ssl_video.data.transforms.per_view import PerView
from ssl_video.utils.config import build
from ssl_video.utils.errors import InputError
from support.methods import compose_train

PLAIN: dict[str, Any] = {
    "size": 16,
    "short_side": [16, 16],
    "flip_probability": 0.0,
    "jitter_probability": 0.0,
    "gray_probability": 0.0,
    "blur_probability": 0.0,
    "mean": [0.0, 0.0, 0.0],
    "std": [1.0, 1.0, 1.0],
}
COMPOSED = ["cvrl", "cvrl_small", "cvrl_per_frame", "moco_v3"]


def composed(name: str, *overrides: str) -> PerView:
    transform = build(compose_train(f"transform={name}", *overrides).transform)
    assert isinstance(transform, PerView)
    return transform


def still_clips(num_frames: int = 3) -> torch.Tensor:
    """The same frame in all places of two clips."""
    return torch.randint(256, (64, 80, 3), dtype=torch.uint8).expand(2, num_frames, -1, -1, -1)


def test_each_view_goes_through_its_own_transform_in_order() -> None:
    clips = torch.randint(256, (2, 3, 16, 16, 3), dtype=torch.uint8)
    transform = PerView(
        views={
            "kept": ContrastiveTransform(**PLAIN),
            "inverted": ContrastiveTransform(**PLAIN, solarize_probability=1.0),
        }
    )
    kept, inverted = transform(clips)
    values = clips.permute(0, 4, 1, 2, 3) / 255
    torch.testing.assert_close(kept, values[0])
    torch.testing.assert_close(inverted, torch.where(values[1] >= 0.5, 1 - values[1], values[1]))


@pytest.mark.parametrize("num_clips", [1, 3])
def test_another_number_of_clips_is_refused(num_clips: int) -> None:
    with pytest.raises(InputError, match=rf"sampler.num_views={num_clips}, but .* 2 transforms \(first, second\)"):
        composed("cvrl_small")(torch.zeros(num_clips, 2, 64, 64, 3, dtype=torch.uint8))


def test_no_view_is_refused() -> None:
    with pytest.raises(ValueError, match="views="):
        PerView(views={})


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_views_of_several_samples_are_each_finished_by_their_own(names: tuple[str, str]) -> None:
    """A batch holds the views of its samples one after the other."""
    views = {"a": ContrastiveTransform(**PLAIN), "b": ContrastiveTransform(**PLAIN, solarize_probability=1.0)}
    transform = PerView(views={name: views[name] for name in names})
    clips = torch.randint(256, (6, 3, 2, 16, 16), dtype=torch.uint8)
    drawn = [transform.draw([(16, 16)] * 2, num_frames=2).values for _ in range(3)]
    together = transform.finish(clips, {name: torch.cat([own[name] for own in drawn]) for name in drawn[0]})
    assert together.is_contiguous()
    alone = [transform.finish(own, values) for own, values in zip(clips.split(2), drawn, strict=True)]
    assert torch.equal(together, torch.cat(alone))
    inverted = together[names.index("b") :: 2]
    values = clips[names.index("b") :: 2] / 255
    torch.testing.assert_close(inverted, torch.where(values >= 0.5, 1 - values, values))


@pytest.mark.parametrize("name", COMPOSED)
def test_config_gives_one_size_and_asymmetric_views(name: str) -> None:
    transform = composed(name)
    assert list(transform.views) == ["first", "second"]
    clips = transform(still_clips())
    assert clips.shape == (2, 3, 3, *([32, 32] if name == "cvrl_small" else [224, 224]))
    views = compose_train(f"transform={name}").transform.views
    assert (views.first.blur_probability, views.second.blur_probability) == (1.0, 0.1)
    assert (views.first.solarize_probability, views.second.solarize_probability) == (0.0, 0.2)
    different = {key for key in views.first if views.first[key] != views.second[key]}
    assert different == {"blur_probability", "solarize_probability"}


@pytest.mark.parametrize("name", ["cvrl", "cvrl_small", "moco_v3"])
def test_clip_of_equal_frames_stays_one(name: str) -> None:
    transform = composed(name)
    for _ in range(5):
        clips = transform(still_clips())
        torch.testing.assert_close(clips, clips[:, :, :1].expand_as(clips), rtol=0, atol=1e-5)


def test_draws_per_frame_fail_the_test_above() -> None:
    clips = composed("cvrl_per_frame")(still_clips())
    assert (clips - clips[:, :, :1]).abs().amax(dim=(1, 2, 3, 4)).min() > 0.1


def test_per_frame_preset_differs_in_nothing_else() -> None:
    ours, ablation = (
        OmegaConf.to_container(compose_train(f"transform={name}").transform) for name in ("cvrl", "cvrl_per_frame")
    )
    assert isinstance(ours, dict) and isinstance(ablation, dict)
    for view in ("first", "second"):
        assert ours["views"][view].pop("consistent") is True
        assert ablation["views"][view].pop("consistent") is False
    assert ours == ablation


def test_one_setting_of_one_view_can_be_set() -> None:
    views = compose_train("transform=cvrl", "transform.views.second.blur_probability=0.3").transform.views
    assert (views.first.blur_probability, views.second.blur_probability) == (1.0, 0.3)


def test_faults_inside_a_view_are_named_with_their_place() -> None:
    with pytest.raises(InputError) as fault:
        compose_train("transform=cvrl", "+transform.views.second.solarise=1", "transform.views.first.size=big")
    message = str(fault.value)
    assert "transform.views.second.solarise: " in message
    assert "transform.views.first.size='big'" in message
    with pytest.raises(InputError, match=r"there is no key 'transform\.views\.first\.sise'; did you mean .*size"):
        compose_train("transform=cvrl", "transform.views.first.sise=3")
