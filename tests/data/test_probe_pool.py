import sys
from pathlib import Path

from ssl_video.data.probe_pool import probe_all

CRASHING = """
import json, os, sys, time
for line in sys.stdin:
    name = os.path.basename(json.loads(line)["path"])
    if name.startswith("crash"): os.abort()
    if name.startswith("exit"): sys.exit(3)
    if name.startswith("hang"): time.sleep(60)
    print(json.dumps({"status": "ok", "num_frames": int(name.split("_")[1])}), flush=True)
"""


def test_a_crash_of_the_decoder_costs_one_file(tmp_path: Path) -> None:
    names = ["ok_1", "crash_2", "ok_3", "hang_4", "ok_5", "exit_6", "crash_7", "ok_8"]
    answers = list(
        probe_all(
            [tmp_path / name for name in names],
            num_workers=2,
            program=(sys.executable, "-c", CRASHING),
            deadline_seconds=1.0,
        )
    )
    assert [answer.get("num_frames") for answer in answers] == [1, None, 3, None, 5, None, None, 8]
    reasons = [answer.get("reason", "") for answer in answers]
    assert "SIGABRT" in reasons[1] and "SIGABRT" in reasons[6]
    assert "no answer in 1 s" in reasons[3]
    assert "exit code 3" in reasons[5]
