"""The stand-in for the trainer, beside what a method reads of the real one."""

from ssl_video.cli.stand_in import attach_stand_in
from support.methods import build_method


def test_a_method_reads_its_place_in_the_run_from_the_stand_in() -> None:
    method, _ = build_method("vcop")
    attach_stand_in(method, total_steps=90, step=25, batches_per_epoch=10)
    assert (method.global_step, method.current_epoch, method.global_rank) == (25, 2, 0)
    assert (method.total_steps, method.steps_per_epoch) == (90, 10)
