import numpy as np
import pytest

from ssl_video.data.solvable_videos import palindrome, render

EVERY = ["A", "B", "C", "D", "E"]


def video(generator: str, times: list, seed: int = 0, **settings) -> np.ndarray:
    return render(generator, np.asarray(times), rng=np.random.default_rng(seed), **settings)


@pytest.mark.parametrize("generator", EVERY)
def test_shape_and_type(generator):
    shown = video(generator, [[0, 5, 9], [20, 40, 63]], size=26)
    assert shown.shape == (2, 3, 26, 26, 3) and shown.dtype == np.uint8


@pytest.mark.parametrize("generator", EVERY)
def test_same_state_same_video_other_state_another(generator):
    assert np.array_equal(video(generator, [[3, 8]]), video(generator, [[3, 8]]))
    assert not np.array_equal(video(generator, [[3, 8]]), video(generator, [[3, 8]], seed=1))


@pytest.mark.parametrize("generator", ["A", "B"])
def test_a_time_shows_the_same_frame_wherever_it_is_asked(generator):
    shown = video(generator, [[3, 8, 8], [8, 3, 40]])
    alone = video(generator, [[8]])[0, 0]
    for place in [(0, 1), (0, 2), (1, 0)]:
        assert np.array_equal(shown[place], alone)
    assert not np.array_equal(shown[0, 0], alone)


@pytest.mark.parametrize("generator", ["C", "D"])
def test_noise_is_drawn_per_frame_shown(generator):
    shown = video(generator, [[8, 8], [8, 9]]).reshape(4, -1).astype(float)
    distances = [np.abs(shown[i] - shown[j]).mean() for i in range(4) for j in range(i)]
    assert min(distances) > 5 and max(distances) < 1.3 * min(distances)  # equal times are no closer than others


def test_frames_of_c_are_one_picture_and_those_of_d_are_not():
    still, exchanged = (video(g, [[0, 1]]).astype(float)[0] for g in "CD")
    texture = still.mean()
    assert np.corrcoef(still[0].ravel() - texture, still[1].ravel() - texture)[0, 1] > 0.4
    assert abs(np.corrcoef(exchanged[0].ravel(), exchanged[1].ravel())[0, 1]) < 0.2


def blob(frames: np.ndarray) -> np.ndarray:
    """Centre x, y and spread of what differs from the least bright value of every pixel: ``[T, 3]``."""
    still = frames.min(axis=0)
    weights = (frames.astype(float) - still).mean(axis=3)
    weights /= weights.sum(axis=(1, 2), keepdims=True)
    grid = np.arange(frames.shape[1])
    x, y = (weights.sum(axis=axis) @ grid for axis in (1, 2))
    spread = (weights * ((grid - x[:, None, None]) ** 2 + (grid[:, None] - y[:, None, None]) ** 2)).sum(axis=(1, 2))
    return np.stack([x, y, spread], axis=1)


@pytest.mark.parametrize("seed", range(5))
def test_blob_of_a_drifts_and_grows_and_that_of_b_only_drifts(seed):
    times = [list(range(0, 64, 9))]
    a, b = (blob(video(g, times, seed=seed, size=64)[0]) for g in "AB")
    for path in (a, b):
        step = np.diff(path[:, :2], axis=0)[1:-1]
        assert (step @ (path[-1, :2] - path[0, :2]) > 0).all()  # forwards all the way
    assert (np.diff(a[1:-1, 2]) > 0).all()
    assert b[1:-1, 2].max() < 1.35 * b[1:-1, 2].min()


def test_b_goes_as_often_forwards_as_backwards():
    """The law is its own reversal: headings are uniform, and first and last positions have the same distribution."""
    paths = [blob(video("B", [[0, 20, 40, 63]], seed=seed, size=24)[0]) for seed in range(300)]
    moves = np.array([path[-1, :2] - path[0, :2] for path in paths])
    assert (np.abs(moves.mean(axis=0)) < 3 * moves.std(axis=0) / np.sqrt(300)).all()


def test_palindromes():
    assert palindrome(np.array([[1, 5, 8, 9]])).tolist() == [[1, 5, 5, 1]]
    assert palindrome(np.array([[0, 1], [4, 5], [8, 9]])).tolist() == [[0, 1], [4, 5], [0, 1]]
    frames = video("E", [[1, 20, 40, 63]])[0]
    assert np.array_equal(frames[0], frames[3]) and np.array_equal(frames[1], frames[2])
    assert not np.array_equal(frames[0], frames[1])
    clips = video("E", [[0, 1], [24, 25], [48, 49]])
    assert np.array_equal(clips[0], clips[2]) and not np.array_equal(clips[0], clips[1])


@pytest.mark.parametrize("generator", EVERY)
def test_nothing_is_cut_off(generator):
    """A pixel that is 255 for long would look alike at different times."""
    shown = video(generator, [list(range(0, 64, 7))], seed=3)
    assert (shown == 255).mean() < 0.001


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="generator='F'"):
        video("F", [[0]])
    with pytest.raises(ValueError, match="0 to 63"):
        video("A", [[64]])
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        video("A", [0, 1])
