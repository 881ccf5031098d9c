#!/usr/bin/env bash
# Checks that need a graphics card: every CUDA backend against the dequantized product, steps of the grids against those
# on the CPU, one tuned block, one answer. Takes some minutes. Exit status: 0 all checks passed, 1 a check failed, 2 there
# is no CUDA card.
#
#   tests/gpu/run.sh                      # in the environment of the repository, set up for CUDA if needed
#   PYTHON=/path/to/python tests/gpu/run.sh    # with a Python in which Bitwright's libraries are installed
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
if [ -n "${PYTHON:-}" ]; then
  exec "$PYTHON" -m tests.gpu.check "$@"
fi
if ! nvidia-smi -L 2>/dev/null | grep -q 'GPU 0'; then
  echo "No CUDA card was found, so nothing was checked." >&2
  exit 2
fi
exec python3 packaging/bootstrap.py exec --device cuda --extra test python -m tests.gpu.check "$@"
