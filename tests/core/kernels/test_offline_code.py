"""What the compilers make of the kernels for GPUs that are not here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
ROOT = Path(__file__).parents[3]
SHARED_BYTES = {"sm_80": 166_912, "sm_90": 232_448, "sm_100": 232_448, "gfx942": 65_536}
HOPPER = ["gluon:sm_90:64", "gluon-lse:sm_90:96", "gluon:sm_90:128"]
OTHERS = [f"triton:{architecture}:128" for architecture in SHARED_BYTES]
AROUND = ["arrange:sm_90:128", "choose:sm_90:1024", "means:sm_90:128"]


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """Compiled in processes of their own: this one holds the interpreter's version of the kernels."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton"))}
    targets = [*HOPPER, *OTHERS, *AROUND]
    command = [sys.executable, "-m", "tests.core.kernels.compile_offline"]
    running = [
        subprocess.Popen(
            command + targets[first::2],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for first in range(2)
    ]
    found = {}
    for process in running:
        printed, complaints = process.communicate()
        assert process.returncode == 0, complaints[-2000:]
        found |= json.loads(printed)
    return found


@pytest.mark.parametrize("target", OTHERS)
def test_multiplies_matrices_and_fits(code, target: str):
    found = code[target]
    assert found["wgmma"] + found["mma"] + found["tcgen05"] > 0
    assert found["shared"] <= SHARED_BYTES[target.split(":")[1]]


@pytest.mark.parametrize("target", HOPPER)
def test_hopper_copies_and_multiplies_asynchronously_from_registers_that_suffice(code, target: str):
    found = code[target]
    assert found["wgmma"] > 0
    assert found["tma"] > 0
    assert found["notes"] == [], "the assembler serialises products"
    assert found["spilled"] == 0
    # 384 threads at entry
    assert found["reg"] * 384 <= 65_536
    assert found["shared"] <= SHARED_BYTES["sm_90"]


@pytest.mark.parametrize("target", AROUND)
def test_what_runs_around_the_kernel_needs_no_memory_for_registers(code, target: str):
    assert code[target]["spilled"] == 0
    assert code[target]["shared"] <= SHARED_BYTES["sm_90"]


def test_blackwell_copies_through_descriptors(code):
    assert code["triton:sm_100:128"]["tma"] > 0


@pytest.mark.parametrize("target", HOPPER)
def test_hopper_waits_for_values_after_the_exponentials(code, target: str):
    """The product with the values runs under the softmax: why this kernel exists."""
    loops = code[target]["loops"]
    assert len(loops) == 2, "one for each consumer"
    for loop in loops:
        waits = [i for i, name in enumerate(loop) if name == "WARPGROUP.DEPBAR.LE"]
        exponentials = [i for i, name in enumerate(loop) if name == "MUFU.EX2"]
        products = [i for i, name in enumerate(loop) if name.startswith("HGMMA")]
        assert len(waits) == 2 and len(exponentials) > 64
        assert products[-1] < waits[0] < exponentials[0]
        assert exponentials[-1] < waits[1]
        assert not {"LDL", "STL"} & {name.split(".")[0] for name in loop}
