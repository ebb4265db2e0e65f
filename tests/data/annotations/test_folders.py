from ssl_video.data.annotations.folders import read_folder_labels


def test_the_first_folder_is_the_label() -> None:
    read = read_folder_labels(["run/a.mp4", "walk/park/b.mp4"])
    assert [(video.path, video.labels) for video in read] == [
        ("run/a.mp4", {"label": "run"}),
        ("walk/park/b.mp4", {"label": "walk"}),
    ]


def test_one_video_outside_the_folders_means_no_labels() -> None:
    assert [video.labels for video in read_folder_labels(["run/a.mp4", "b.mp4"])] == [{}, {}]
