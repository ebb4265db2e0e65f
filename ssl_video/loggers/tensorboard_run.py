"""TensorBoard: event files in ``RUN/tensorboard``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_fabric.utilities.rank_zero import rank_zero_only
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard.summary import hparams

from ssl_video.loggers.dotted import dotted
from ssl_video.utils.pictures import ClipTable, Picture, Pixels, clips_of, gif, jpeg, tiled

SHOWN_CLIPS = 16  # of a table; the picture beside shows the frames of all


class TensorBoardRun(TensorBoardLogger):
    """The run's values, its configuration (HParams and Text) and its pictures (Images).

    Args:
        save_dir: the run's folder.
        first_step: the next step of a run that goes on; what was written at or beyond it before is not shown. None for
            a new run.
    """

    def __init__(self, *, save_dir: str, first_step: int | None = None) -> None:
        purge: dict[str, Any] = {} if first_step is None else {"purge_step": first_step}
        super().__init__(save_dir, name="", version="tensorboard", default_hp_metric=False, **purge)

    @property
    def identity(self) -> dict[str, Any]:
        """What finds this run again."""
        return {}

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        """Writes the configuration, one dotted key a line, as text and for comparing runs (HParams)."""
        values = {key: value if isinstance(value, bool | int | float) else str(value) for key, value in dotted(params)}
        lines = ["| key | value |", "|---|---|", *(f"| {key} | {value} |" for key, value in values.items())]
        self.experiment.add_text("config", "\n".join(lines))
        for summary in hparams(values, {"train/loss": 0.0}):  # only the metric's name is used
            self._add(summary)

    @rank_zero_only
    def show(self, name: str, picture: Picture, *, step: int) -> None:
        """Adds a picture, and of a table its clips as one animation."""
        still = picture.still if isinstance(picture, ClipTable) else picture
        self._add_image(name, jpeg(still.image), still.image, step=step)
        if isinstance(picture, ClipTable) and (clips := clips_of(picture)):
            frames = tiled(clips[:SHOWN_CLIPS])
            self._add_image(f"{name}_playing", gif(frames), frames[0], step=step)

    def _add_image(self, tag: str, encoded: bytes, shape: Pixels, *, step: int) -> None:
        # Not by add_image, which takes no animations; add_video wants moviepy, and a program beside it.
        image = Summary.Image(height=shape.shape[0], width=shape.shape[1], colorspace=3, encoded_image_string=encoded)
        self._add(Summary(value=[Summary.Value(tag=tag, image=image)]), step=step)

    def _add(self, summary: Any, *, step: int | None = None) -> None:
        self.experiment._get_file_writer().add_summary(summary, step)

    def close(self, *, exit_code: int) -> None:
        """Writes what is left."""
        self.finalize("success" if exit_code == 0 else "failed")
