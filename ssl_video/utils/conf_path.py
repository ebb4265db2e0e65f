"""Where the configuration files lie."""

from pathlib import Path

from ssl_video.utils.errors import InputError

PACKAGE = Path(__file__).resolve().parent.parent


def conf_dir(package: Path = PACKAGE) -> Path:
    """Find conf/: inside the package when installed from a wheel, beside it in a checkout.

    Args:
        package: folder of the package.

    Returns:
        The folder that holds train.yaml and the config groups.

    Raises:
        InputError: neither place holds it, so the installation is incomplete.
    """
    places = (package / "conf", package.parent / "conf")
    for place in places:
        # Any other package may own a folder named conf in site-packages; train.yaml tells ours.
        if (place / "train.yaml").is_file():
            return place
    raise InputError(
        f"No conf/train.yaml in {' or '.join(str(place) for place in places)}; the package needs its configuration "
        "files. Install it again from a wheel, or with `pip install -e .` in a complete checkout."
    )
