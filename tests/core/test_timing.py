import time

import torch

from rainfusion_core.timing import Span, peak_memory_bytes

CPU = torch.device("cpu")


def test_a_span_measures_what_lies_between():
    span = Span(CPU)
    time.sleep(0.02)
    assert 0.02 <= span.stop().seconds < 5


def test_peak_memory_holds_what_was_allocated():
    block = torch.ones(50 * 2**20, dtype=torch.uint8)
    assert peak_memory_bytes(CPU) > block.numel()
