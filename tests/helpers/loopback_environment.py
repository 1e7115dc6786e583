"""Starts the one loopback Hub of this process; to be imported before anything that imports `huggingface_hub`."""

import os
import tempfile

from loopback_hub import LoopbackHub


HUB = LoopbackHub()
_HOME = tempfile.TemporaryDirectory()

for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
    os.environ.pop(name, None)
for name in ("HF_HUB_CACHE", "HF_INVERTUNE_CACHE"):
    os.environ.pop(name, None)
os.environ["HF_ENDPOINT"] = HUB.url
os.environ["HF_HOME"] = _HOME.name
os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["NO_PROXY"] = "127.0.0.1"
