"""The process of a run."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from core.jobs.process import environment

SCRIPT = """
import sys
from core.jobs.worker import lean_pipeline
lean_pipeline()
from transformers.models.llama import modeling_llama
print("torch._dynamo" in sys.modules, any(name.startswith("triton.") for name in sys.modules))
"""


@pytest.mark.skipif(torch.cuda.is_available() or torch.xpu.is_available(), reason="this machine has a GPU")
def test_triton_is_not_loaded_without_a_gpu() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]
