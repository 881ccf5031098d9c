"""The quantizer of llama.cpp as a program: `SOURCE TARGET TYPE`. Needs llama-cpp-python; does not import core."""

from __future__ import annotations

import ctypes
import sys

import llama_cpp


def main(source: str, target: str, kind: str) -> int:
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    settings.nthread = 1
    return int(llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(settings)))


sys.exit(main(*sys.argv[1:]))
