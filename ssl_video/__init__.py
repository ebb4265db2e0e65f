"""Self-supervised and semi-supervised learning of video representations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ssl_video.hub.pretrained import PretrainedBackbone


def load(source: str | Path, *, trusted_packages: Sequence[str] = ()) -> PretrainedBackbone:
    """Loads a backbone with its transform; see `ssl_video.hub.pretrained`.

    ``model = ssl_video.load("outputs/…")``, then ``features = model(model.transform(frames))``.

    Args:
        source: a run's folder, an exported folder, a `.ckpt` or `.safetensors` of a run, or ``owner/name`` or
            ``owner/name@revision`` on the Hugging Face Hub.
        trusted_packages: packages beside ssl_video whose classes the file's configuration may build.

    Raises:
        InputError: there is no such thing, it is damaged, or it is not ours.
    """
    from ssl_video.hub.pretrained import load as load_pretrained  # here: `import ssl_video` loads nothing

    return load_pretrained(source, trusted_packages=trusted_packages)
