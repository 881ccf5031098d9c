"""Entry point of `python -m core`: the command line without the window."""

from __future__ import annotations

import sys

from core.cli import main

sys.exit(main())
