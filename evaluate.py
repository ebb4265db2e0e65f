"""Measure a backbone: ``python evaluate.py checkpoint=RUN evaluation=knn``."""

import sys

from ssl_video.cli.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
