"""Where figures come from: machine, versions, date."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch


PACKAGES = (
    "hf_invertune",
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "datasets",
    "scikit-learn",
    "matplotlib",
    "pillow",
    "jinja2",
)


def versions() -> dict[str, str]:
    """Those of Python and of the packages that figures depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def machine() -> dict[str, Any]:
    """Processor, cores, threads in use, accelerator."""
    return {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def now() -> str:
    """The time, to the second, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
