"""Counts the memory of tensors while something runs."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of storages that are made while it is on, and the most of them at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        inputs = {x.untyped_storage()._cdata for x in args if isinstance(x, torch.Tensor)}
        for x in out if isinstance(out, tuple | list) else (out,):
            storage = x.untyped_storage() if isinstance(x, torch.Tensor) else None
            if storage is not None and storage._cdata not in inputs and storage not in self.seen:
                self.add(storage)
        return out

    def add(self, storage) -> None:
        self.seen[storage] = Size(self, storage.nbytes())


class Size:
    """Lives as long as its storage."""

    def __init__(self, memory: PeakMemory, count: int) -> None:
        self.memory, self.count = memory, count
        memory.now += count
        memory.peak = max(memory.peak, memory.now)

    def __del__(self) -> None:
        self.memory.now -= self.count
