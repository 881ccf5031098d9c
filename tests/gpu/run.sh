#!/usr/bin/env bash
# Checks what only a graphics card can show: every CUDA backend against the dequantized product, one block tuned, one answer.
# Takes some minutes. Exit status: 0 all right, 1 something is wrong, 2 there is no CUDA card.
#
#   tests/gpu/run.sh                      # in the environment of the repository, set up for CUDA if need be
#   PYTHON=/path/to/python tests/gpu/run.sh    # with a Python that has Bitwright's libraries
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
if [ -n "${PYTHON:-}" ]; then
  exec "$PYTHON" -m tests.gpu.check "$@"
fi
if ! nvidia-smi -L 2>/dev/null | grep -q 'GPU 0'; then
  echo "No CUDA card was found on this machine: nothing was checked." >&2
  exit 2
fi
exec python3 packaging/bootstrap.py exec --device cuda --extra test python -m tests.gpu.check "$@"
