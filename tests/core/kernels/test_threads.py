import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from rainfusion_core.kernels.threads import in_threads


def threads_of_a_new_thread() -> int:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()


def test_in_threads_keeps_the_order_and_limits_each_thread():
    before = threads_of_a_new_thread()
    with in_threads(2) as run:
        seen = run(lambda item: (item, torch.get_num_threads(), threading.get_ident()), range(8))
    assert [item for item, _, _ in seen] == list(range(8))
    assert {threads for _, threads, _ in seen} == {1}
    assert threading.get_ident() not in {thread for _, _, thread in seen}
    assert threads_of_a_new_thread() == before


def test_an_error_in_a_thread_reaches_the_caller():
    before = threads_of_a_new_thread()
    with pytest.raises(ZeroDivisionError), in_threads(2) as run:
        run(lambda item: 1 // item, [1, 0])
    assert threads_of_a_new_thread() == before
