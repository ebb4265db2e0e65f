"""Pre-train a video backbone: ``python train.py method=moco dataset=folder dataset.root=/my/videos``."""

import sys

from ssl_video.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
