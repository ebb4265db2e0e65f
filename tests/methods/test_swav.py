import pytest
import torch

from ssl_video.losses.swapped_prediction import swapped_prediction
from ssl_video.utils.errors import InputError
from support.methods import attach, build_method, random_batch


def test_codes_of_the_first_two_of_four_clips_are_predicted_from_all_others() -> None:
    method, config = build_method("swav", "sampler.num_views=4")
    method.eval()
    batch = random_batch(config)
    loss = method.losses(batch)["swapped_prediction"]
    scores = [method.prototypes(method.projector(method.backbone(clips))) for clips in batch.clips.unbind(1)]  # type: ignore[operator]
    torch.testing.assert_close(loss, swapped_prediction(scores, temperature=config.method.temperature))
    all_codes = swapped_prediction(scores, temperature=config.method.temperature, num_code_views=4)
    assert not torch.isclose(loss, all_codes)


def test_prototypes_are_brought_to_unit_length_before_the_step() -> None:
    method, config = build_method("swav")
    with torch.no_grad():
        method.prototypes.weight.mul_(3.0)  # type: ignore[operator,union-attr]
    method.losses(random_batch(config))
    norms = method.prototypes.weight.norm(dim=1)  # type: ignore[operator,union-attr]
    torch.testing.assert_close(norms, torch.ones_like(norms))


def test_prototypes_wait_for_the_second_epoch() -> None:
    """Ten steps an epoch: at step 9 neither gradient nor decay moves them, at step 10 they learn."""
    method, config = build_method("swav", "method.frozen_prototype_epochs=1.0")
    weight = method.prototypes.weight
    optimizer = torch.optim.AdamW(method.parameters(), lr=0.1, weight_decay=0.5)
    for step, learns in ((9, False), (10, True)):
        attach(method, global_step=step)
        method.losses(random_batch(config))["swapped_prediction"].backward()
        before = weight.detach().clone()
        method.on_before_optimizer_step(optimizer)
        optimizer.step()
        optimizer.zero_grad()
        assert torch.equal(weight, before) is not learns


def test_more_codes_than_clips_are_refused() -> None:
    method, _ = build_method("swav", "method.num_code_views=3")
    with pytest.raises(InputError, match=r"sampler\.num_views=2; SwAV needs 3 clips"):
        method.check_batch(num_views=2, num_frames=8)
