"""What the measurement of a large manifest counts as its memory."""

import mmap

from benchmark.manifest_size import _pss_of_copies, memory

SMAPS = """7f00-7f10 r--s 00000000 08:01 42 /cache/manifests/abc-3.arrow
Size:                 64 kB
Pss:                  40 kB
Pss_Dirty:             0 kB
VmFlags: rd mr
7f10-7f20 r-xp 00000000 08:01 43 /lib/libtorch.so
Pss:                 900 kB
7f20-7f30 rw-p 00000000 00:00 0
Pss:                  70 kB
7f30-7f40 r--s 00000000 08:01 42 /cache/manifests/def-3.arrow
Pss:                   2 kB
"""


def test_mapped_copies_are_told_from_libraries() -> None:
    assert _pss_of_copies(SMAPS.splitlines()) == 42


def test_memory_of_this_process_is_found() -> None:
    before = memory()
    held = mmap.mmap(-1, 32_000_000)  # not from what earlier tests freed
    held.write(bytes(32_000_000))
    after = memory()
    assert 16 < after["mb"] - before["mb"] < 64
    assert after["mb_with_libraries"] > after["mb"]
    assert after["mb_of_mapped_copy"] == before["mb_of_mapped_copy"]
    assert len(held) == 32_000_000
