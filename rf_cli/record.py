"""The record of one render: every setting, version and measurement, as plain JSON values."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rainfusion_core.report import RenderReport, SparsityReport
from rf_cli import __version__

PACKAGES = ("torch", "diffusers", "transformers", "triton")


def environment(device: str) -> dict[str, Any]:
    """Versions, and what the render ran on."""
    found: dict[str, Any] = {"rf": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    import torch

    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else _processor()
    return {**found, "device": device, "device_name": name, "threads": torch.get_num_threads()}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def first_frame(report: SparsityReport) -> dict[str, Any] | None:
    """What the first frame was to the sparse calls; None where there were none."""
    return None if report.first_frame is None else report.first_frame._asdict()


def record(
    settings: dict[str, Any], report: RenderReport, *, video: Path, load_s: float, device: str
) -> dict[str, Any]:
    """What `rf generate` writes beside the video. Times in seconds, sparsities as fractions."""
    sparsity, times, speed = report.sparsity, report.times, report.sparsity.speed
    return {
        "video": str(video),
        "settings": settings,
        "environment": environment(device),
        "kernel": sparsity.kernel or None,
        "dense_kernel": sparsity.dense_kernel or None,
        "sparsity": {
            "requested": sparsity.requested,
            "achieved": sparsity.achieved,
            "sparse_calls": len(sparsity.sparse_rows),
            "calls": len(sparsity.rows),
            "dense_calls_by_reason": sparsity.dense_reasons(),
            "absent_calls": sparsity.absent,
            "absent_calls_by_reason": dict(sparsity.absent_by_reason),
            "first_frame": first_frame(sparsity),
            "per_layer": sparsity.per_layer(),
            "per_step": sparsity.per_step(),
        },
        "timing_s": {
            "load": load_s,
            "text_encoding": times.text_encoding,
            "denoising": times.denoising,
            "steps": list(times.steps),
            "attention": times.attention,
            "decoding": times.decoding,
            "total": times.total,
        },
        "attention_speed": None
        if speed is None
        else {**vars(speed), "speedup": speed.speedup, "measured_on": "one call of this run"},
        "peak_memory_bytes": report.peak_memory_bytes,
        "others": report.others,
    }
