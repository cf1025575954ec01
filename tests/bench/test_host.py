"""What else ran on the host is seen: processes, their time, their memory."""

import os
import subprocess
import sys
import time

from bench.host import Watch, cpu_s, descendants, peak_memory_bytes

BUSY = "import time; end = time.monotonic() + 60\nwhile time.monotonic() < end: pass"


def test_a_started_process_is_a_descendant_and_its_time_counts():
    with subprocess.Popen([sys.executable, "-c", BUSY]) as child:
        try:
            assert child.pid in descendants(os.getpid())
            end = time.monotonic() + 30
            while cpu_s({child.pid}) < 0.05 and time.monotonic() < end:
                time.sleep(0.01)
            assert cpu_s({child.pid}) >= 0.05
        finally:
            child.kill()


def test_shares_of_the_host_are_shares():
    watch = Watch()
    time.sleep(0.05)
    conditions = watch.conditions()
    assert 0 <= conditions.others_share <= 1.5  # the clock of /proc/stat has coarse ticks
    assert 0 <= conditions.stolen_share <= 1.5
    assert conditions.wall_s >= 0.05


def test_the_peak_of_memory_includes_what_was_freed():
    before = peak_memory_bytes()
    block = bytearray(before)
    size = len(block)
    del block
    assert peak_memory_bytes() >= size
