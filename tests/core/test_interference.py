"""Whether other programs were running is told from them, and not from the process itself."""

import subprocess
import sys
import time

import pytest

from rainfusion_core.interference import Interference


def busy(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def known(interference: Interference) -> float:
    share = interference.share()
    if share is None:
        pytest.skip("this system does not tell how busy its processor is")
    return share


def test_a_busy_neighbour_is_seen_and_own_work_is_not():
    until = "import time; t = time.process_time()\nwhile time.process_time() < t + 60: pass"
    with subprocess.Popen([sys.executable, "-c", until]) as neighbour:
        try:
            time.sleep(0.3)
            beside = Interference()
            busy(0.5)
            with_neighbour = known(beside)
        finally:
            neighbour.kill()
    assert with_neighbour > 0.1


def test_the_share_is_a_share():
    interference = Interference()
    busy(0.2)
    assert 0 <= known(interference) <= 1
