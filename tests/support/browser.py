"""Headless Chromium, for tests marked browser: what a page really becomes."""

import shutil
import subprocess
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

# No sandbox: containers run as root. No host can be reached: a page has to bring everything along.
_WORDS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run"),
    *("--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--virtual-time-budget=20000"),
)


def find_browser() -> str | None:
    """The first of BROWSERS that is on PATH."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def _run(words: list[str], page: Path, profile: Path) -> subprocess.CompletedProcess[str]:
    browser = find_browser()
    assert browser is not None
    return subprocess.run(
        [browser, *_WORDS, f"--user-data-dir={profile}", *words, page.absolute().as_uri()],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )


def dump_dom(page: Path, *, profile: Path) -> tuple[str, list[str]]:
    """The page after its scripts have run, and what they wrote to the console."""
    done = _run(["--dump-dom"], page, profile)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def screenshot(page: Path, target: Path, *, profile: Path, width: int = 1400, height: int = 2000) -> None:
    """Writes the upper part of the page as PNG."""
    _run([f"--screenshot={target.absolute()}", f"--window-size={width},{height}"], page, profile)
