"""Runs the source of a Gluon kernel on the CPU, with barriers, copies and products as on Hopper: a thread a partition.

- A copy (TMA) fills its buffer with NaN when issued and with data after a random delay.
- A product (wgmma) reads its shared operands when issued and again when waited for: a change in
  between is a race. So are NaN from a copy, and rows stored without a fence before the product.
- When every partition waits and no copy is under way, that is a deadlock.
- A load or store outside of its tensor fails.

Not seen: what happens inside a warp, and how long anything takes.
"""

import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor


class Stopped(Exception):
    """Another partition failed."""


class Machine:
    """One program: its threads, what they wait for, and what went wrong."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.problems: list[str] = []
        self.waiting: list[Callable[[], bool]] = []
        self.running, self.copies = 1, 0
        self.unfenced: set[int] = set()

    def fail(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)
        self.changed.notify_all()

    def wait(self, ready: Callable[[], bool], what: str) -> None:
        """Called with `changed` held."""
        self.waiting.append(ready)
        while not ready():
            if self.problems:
                raise Stopped
            stuck = len(self.waiting) == self.running and not self.copies
            if stuck and not any(can_go_on() for can_go_on in self.waiting):
                self.fail(f"deadlock: {what}")
                raise Stopped
            self.changed.wait(0.05)
        self.waiting.remove(ready)

    def copy(self, work: Callable[[], None]) -> None:
        def later() -> None:
            time.sleep(random.random() * 0.002)
            with self.changed:
                work()
                self.copies -= 1
                self.changed.notify_all()

        with self.changed:
            self.copies += 1
        threading.Thread(target=later).start()


machine = Machine()
program = [0, 0, 0]
local = threading.local()


def jitter() -> None:
    if random.random() < 0.3:
        time.sleep(random.random() * 0.0006)


class Barrier:
    def __init__(self) -> None:
        self.count = self.pending = self.bytes = self.phase = 0

    def settle(self) -> None:
        if self.pending == 0 and self.bytes == 0:
            self.phase += 1
            self.pending = self.count
            machine.changed.notify_all()
        elif self.pending < 0:
            machine.fail("more arrivals at a barrier than it counts")


class Buffer:
    """Shared memory. Indexing gives views."""

    def __init__(self, data: Tensor) -> None:
        self.data, self.dtype, self.place = data, data.dtype, data.data_ptr()

    def index(self, i: Any) -> "Buffer":
        return Buffer(self.data[int(i)])

    def permute(self, order: tuple[int, ...]) -> "Buffer":
        return Buffer(self.data.permute(order))

    def reinterpret(self, dtype: torch.dtype, shape: list[int], layout: Any) -> "Buffer":
        return Buffer(self.data.view(shape))

    def store(self, value: Tensor) -> None:
        self.data.copy_(value.to(self.dtype))
        with machine.changed:
            machine.unfenced.add(self.place)

    def load(self, layout: Any) -> Tensor:
        return self.data.clone()


class Pointer:
    def __init__(self, x: Tensor, offset: Any = 0) -> None:
        self.x, self.offset = x, offset

    def __add__(self, other: Any) -> "Pointer":
        return Pointer(self.x, self.offset + other)

    def __sub__(self, other: Any) -> "Pointer":
        return Pointer(self.x, self.offset - other)

    def places(self, mask: Any) -> tuple[Tensor, Tensor]:
        offset, mask = torch.broadcast_tensors(torch.as_tensor(self.offset), torch.as_tensor(mask))
        inside = (offset >= 0) & (offset < len(self.x))
        assert (inside | ~mask).all(), "an access outside of its tensor"
        return torch.where(mask, offset, 0), mask


def load(pointer: Pointer, mask: Any = True, other: Any = 0) -> Tensor:
    places, mask = pointer.places(mask)
    return torch.where(mask, pointer.x[places], other).to(pointer.x.dtype)


def store(pointer: Pointer, value: Tensor, mask: Any = True) -> None:
    places, mask = pointer.places(mask)
    value = torch.broadcast_to(value, places.shape)
    pointer.x[places[mask]] = value[mask].to(pointer.x.dtype)


class Descriptor:
    def __init__(self, x: Tensor, shape: list[int], strides: list[int], block: list[int], layout):
        self.x, self.block, self.dtype, self.layout = x.reshape(shape), block, x.dtype, layout
        assert list(self.x.stride()) == strides
        assert x.data_ptr() % 16 == 0 and not any(s * x.element_size() % 16 for s in strides[:-1])


def expect(barrier: Barrier, count: int) -> None:
    with machine.changed:
        barrier.pending -= 1
        barrier.bytes += count
        barrier.settle()


def arrive(barrier: Barrier, count: int) -> None:
    jitter()
    with machine.changed:
        barrier.pending -= count
        barrier.settle()


def wait(barrier: Barrier, phase: Any, pred: Any = True) -> None:
    if pred:
        with machine.changed:
            machine.wait(lambda: barrier.phase & 1 != int(phase), f"parity {int(phase)}")
        jitter()


def init(barrier: Barrier, count: int) -> None:
    barrier.count = barrier.pending = count


def load_tile(source: Descriptor, at: list[Any], barrier: Barrier, target: Buffer) -> None:
    head, row, column = (int(x) for x in at)
    assert column == 0 and list(target.data.shape) == source.block
    target.data.fill_(float("nan"))

    def fill() -> None:
        found = source.x[head, row : row + target.data.shape[1]]
        target.data.zero_()
        target.data[0, : found.shape[0], : found.shape[1]] = found
        barrier.bytes -= target.data.numel() * target.data.element_size()
        barrier.settle()

    machine.copy(fill)


def fence() -> None:
    with machine.changed:
        machine.unfenced.clear()


class Product:
    """A product that was issued; `value` is there once it was waited for."""

    def __init__(self, a: Any, b: Buffer, acc: Tensor) -> None:
        self.shared = [x for x in (a, b) if isinstance(x, Buffer)]
        self.seen = [x.data.clone() for x in self.shared]
        self.left = self.seen[0] if isinstance(a, Buffer) else a
        self.acc, self.value = acc, None
        with machine.changed:
            if any(x.place in machine.unfenced for x in self.shared):
                machine.fail("a product reads what was stored without a fence")

    def finish(self) -> None:
        with machine.changed:
            for x, before in zip(self.shared, self.seen, strict=True):
                if not torch.equal(x.data, before) or before.isnan().any():
                    machine.fail("race: an operand changed under a product")
        self.value = self.left.float() @ self.seen[-1].float() + self.acc


def multiply(a: Any, b: Buffer, acc: Any, use_acc: bool = True, is_async: bool = False) -> Product:
    assert is_async
    product = Product(a, b, acc if use_acc else torch.zeros(()))
    local.issued = [*getattr(local, "issued", []), product]
    jitter()
    return product


def wait_products(pendings: int, deps: tuple[Any, ...]) -> Any:
    while len(local.issued) > pendings:
        local.issued.pop(0).finish()
    jitter()
    if any(x.value is None for x in deps):
        with machine.changed:
            machine.fail("a result is used before it was waited for")
        raise Stopped
    return deps[0].value


def specialize(partitions: list[tuple[Callable, tuple]], warps: list[int], registers: list[int]):
    def work(function: Callable, arguments: tuple) -> None:
        try:
            function(*arguments)
        except Stopped:
            pass
        except Exception as error:
            with machine.changed:
                machine.fail(repr(error))
        with machine.changed:
            machine.running -= 1
            machine.changed.notify_all()

    machine.running = len(partitions)
    threads = [threading.Thread(target=work, args=partition) for partition in partitions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Kernel:
    """What `gluon.jit` makes of a function: called from a kernel, launched with a grid."""

    def __init__(self, function: Callable) -> None:
        self.function = function

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)

    def __getitem__(self, grid: tuple[int, ...]) -> Callable:
        return lambda *arguments, **options: self.launch(grid, arguments, options)

    def launch(self, grid: tuple[int, ...], arguments: tuple, options: dict[str, Any]) -> None:
        global machine
        constants = {name: value for name, value in options.items() if name.isupper()}
        inputs = [Pointer(flat(x)) if isinstance(x, Tensor) else x for x in arguments]
        program[2] = grid[0]
        for program[1] in range(grid[1]):
            for program[0] in range(grid[0]):
                machine = Machine()
                self.function(*inputs, **constants)
                if machine.problems:
                    raise AssertionError("; ".join(machine.problems))


def flat(x: Tensor) -> Tensor:
    """All elements from the first one of `x` on, as they lie in memory."""
    span = 1 + sum((n - 1) * stride for n, stride in zip(x.shape, x.stride(), strict=True))
    return x.as_strided((span,), (1,))


class Constant(int):
    @property
    def value(self) -> int:
        return int(self)


def allocate(dtype: torch.dtype, shape: list[int], layout: Any) -> Any:
    if dtype == torch.int64:
        barriers = [Barrier() for _ in range(shape[0])]
        return SimpleNamespace(index=lambda i: barriers[int(i)])
    return Buffer(torch.full(shape, float("nan"), dtype=dtype))


def no_layout(*arguments: Any, **options: Any) -> None:
    return None


LANGUAGE = dict(
    constexpr=Constant,
    int64=torch.int64,
    float32=torch.float32,
    NVMMASharedLayout=no_layout,
    NVMMADistributedLayout=no_layout,
    DotOperandLayout=no_layout,
    SliceLayout=no_layout,
    BlockedLayout=no_layout,
    program_id=lambda axis: torch.tensor(program[axis]),
    num_programs=lambda axis: program[2],
    static_range=range,
    arange=lambda start, end, layout: torch.arange(start, end),
    zeros=lambda shape, dtype, layout: torch.zeros(shape, dtype=dtype),
    load=load,
    store=store,
    where=torch.where,
    maximum=lambda a, b: torch.maximum(a, torch.as_tensor(b, dtype=a.dtype)),
    max=torch.amax,
    sum=torch.sum,
    exp2=torch.exp2,
    log2=torch.log2,
    convert_layout=lambda x, layout: x,
    allocate_shared_memory=allocate,
    warp_specialize=specialize,
)
HOPPER = dict(
    fence_async_shared=fence,
    mbarrier=SimpleNamespace(
        init=init, expect=expect, arrive=arrive, wait=wait, MBarrierLayout=no_layout
    ),
    tma=SimpleNamespace(async_load=load_tile),
    warpgroup_mma=multiply,
    warpgroup_mma_wait=wait_products,
)


def simulated(path: Path, changes: dict[str, str] | None = None) -> ModuleType:
    """The module at `path`, its kernels simulated, with every text in `changes` replaced."""
    source = path.read_text()
    for old, new in (changes or {}).items():
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    names = "triton.experimental.gluon"
    fakes = {
        names: {"jit": Kernel, "language": SimpleNamespace(**LANGUAGE)},
        f"{names}.language": LANGUAGE,
        f"{names}.language.nvidia.hopper": HOPPER,
        f"{names}.nvidia.hopper": {"TensorDescriptor": Descriptor},
    }
    modules = {name: ModuleType(name) for name in fakes}
    for name, module in modules.items():
        vars(module).update(fakes[name])
    module = ModuleType(path.stem)
    with patch.dict(sys.modules, modules):
        experimental = sys.modules["triton.experimental"]
        with patch.object(experimental, "gluon", modules[names], create=True):
            exec(compile(source, str(path), "exec"), vars(module))
    return module
