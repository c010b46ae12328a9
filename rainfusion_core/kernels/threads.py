"""Threads for kernels on a CPU, each of which works alone instead of splitting every operation."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch

# multiply-adds of a call; starting threads for less costs more than it gains
THREADING_PAYS = 10**8


@contextmanager
def in_threads(threads: int) -> Iterator[Callable[[Callable[[Any], Any], Iterable[Any]], list]]:
    """A function like `map`, whose calls run in `threads` threads that do not share operations.

    Threads that never wait for each other beat threads that split every operation: none stalls
    when the machine is busy with something else, and each cache holds the query block of its core.
    """

    def run(work: Callable[[Any], Any], items: Iterable[Any]) -> list:
        return list(spread(_inferring(work), items))

    if threads == 1:
        spread: Callable = map
        yield run
        return
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            spread = pool.map
            yield run
    finally:
        # a thread that limits itself also sets what threads started later begin with
        torch.set_num_threads(before)


def _inferring(work: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def inside(item: Any) -> Any:
        with torch.inference_mode():
            return work(item)

    return inside
