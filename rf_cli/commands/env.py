"""`rf env`: what this machine runs rf with, for a look before a render and for bug reports."""

from typing import TYPE_CHECKING, Any

from rf_cli import console, options, sections

if TYPE_CHECKING:
    import torch

HEAD_DIM = 128


def env(device: options.Device = "auto", json: options.Json = False) -> None:
    """Show versions, device, and which kernels can run here and why others cannot."""
    import torch

    from rainfusion_core.pipeline import choose_device
    from rf_cli.record import environment

    chosen = choose_device(device)
    record = {
        **environment(chosen),
        "memory_gib": _memory_gib(torch.device(chosen)),
        "kernels": kernels(torch.device(chosen)),
        "dense_kernels": dense_kernels(torch.device(chosen)),
    }
    if json:
        console.out.print_json(data=record)
    else:
        sections.show(_sections(record), console.out)


def kernels(device: "torch.device") -> dict[str, str | None]:
    """Why each sparse kernel cannot run bfloat16 heads of 128 there; None if it can."""
    import torch

    from rainfusion_core.kernels import KERNELS, unavailable_reason

    return {name: unavailable_reason(name, device, torch.bfloat16, HEAD_DIM) for name in KERNELS}


def dense_kernels(device: "torch.device") -> dict[str, str | None]:
    """The same for the dense kernels."""
    import torch

    from rainfusion_core.kernels.dense import DENSE_KERNELS, available_dense

    able = available_dense(device, torch.bfloat16)
    reason = f"not for {device.type}"
    return {name: None if name in able else reason for name in DENSE_KERNELS}


def _memory_gib(device: "torch.device") -> dict[str, float]:
    from rainfusion_core.memory import free_bytes, total_bytes

    return {"free": free_bytes(device) / 2**30, "total": total_bytes(device) / 2**30}


def _sections(record: dict[str, Any]) -> list[sections.Section]:
    memory = record["memory_gib"]
    facts = [
        (key, "not installed" if value is None else str(value))
        for key, value in record.items()
        if not isinstance(value, dict)
    ]
    facts.append(("memory", f"{memory['free']:.1f} of {memory['total']:.1f} GiB free"))
    return [
        sections.Section("Environment", ["", "value"], facts),
        _kernel_section("Sparse kernels, bfloat16, heads of 128", record["kernels"]),
        _kernel_section("Dense kernels, bfloat16, heads of 128", record["dense_kernels"]),
    ]


def _kernel_section(title: str, found: dict[str, str | None]) -> sections.Section:
    rows = [(name, "no" if reason else "yes", reason or "") for name, reason in found.items()]
    return sections.Section(title, ["kernel", "runs here", "why not"], rows)
