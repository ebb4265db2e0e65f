import sys
from pathlib import Path

import pytest

from ssl_video.data.readers.torchcodec import TorchcodecReader
from ssl_video.utils.errors import InputError
from support import videos


def test_without_torchcodec_the_message_names_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    path = videos.write_video(tmp_path / "video.mp4", num_frames=2)
    with pytest.raises(InputError, match=r"FFmpeg libraries .*reader=pyav"):
        TorchcodecReader(path)


@pytest.mark.torchcodec
def test_plain_streams_are_read_by_torchcodec_itself(tmp_path: Path) -> None:
    reader = TorchcodecReader(videos.write_video(tmp_path / "video.mp4", num_frames=20))
    assert reader.library == "torchcodec"
    assert videos.read_frame_numbers(reader.read([13, 4])) == [13, 4]
