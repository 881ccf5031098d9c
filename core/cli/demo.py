"""The whole job on the demo model, in a terminal: quantize, verify, ask one question, say where the result lies.

What `packaging/bootstrap.py run` starts where there is no window. Knows the order of a first visit, and nothing that
`core.api` does not offer to everybody.
"""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path

from core import api
from core.cli import actions
from core.cli.terminal import Interrupts, Terminal
from core.errors import BitwrightError, Cancelled
from core.events import Result, Token
from core.files import free_name
from core.home import home
from core.wording import duration

QUESTION = "What is the capital of France?"


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; an argument, if given, is the output folder. Returns the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    terminal = Terminal()
    if len(given) > 1 or any(word.startswith("-") for word in given):
        terminal.print_error(
            "The demo takes one argument at most, the folder to write.", "Leave it out for the usual place."
        )
        return 2
    began = time.monotonic()
    output = Path(given[0]) if given else free_name(home() / "models" / "demo-4bit")
    try:
        terminal.line("Bitwright makes SmolLM2-135M-Instruct (Apache-2.0, part of the installation) smaller: 4 bits,")
        terminal.line("each block's rounding tuned on a bundled text. About three minutes on two cores; Ctrl-C stops.")
        terminal.line()
        actions.quantize(terminal, "demo", output, {"recipe": "quick", "group_size": 64, "name": "demo"})
        terminal.line()
        _ask_question(terminal, output)
    except Cancelled:
        terminal.print_error("Stopped; nothing was left behind.")
        return 130
    except BitwrightError as error:
        terminal.error(error)
        return 1
    terminal.line(f"From start to answer: {duration(time.monotonic() - began)}.")
    terminal.line(f"Ask it more:  python3 packaging/bootstrap.py exec bitwright chat {shlex.quote(str(output))}")
    return 0


def _ask_question(terminal: Terminal, model: Path) -> None:
    """One question to the result, answered as it is generated."""
    terminal.line(f"You:    {QUESTION}")
    text, speed = [], 0.0
    with Interrupts() as interrupts:
        for event in api.chat(model, QUESTION, max_tokens=48, should_stop=interrupts.requested):
            if isinstance(event, Token):
                text.append(event.text)
            elif isinstance(event, Result):
                speed = event.values["tokens_per_second"]
    terminal.line(f"Model:  {''.join(text).strip()}    ({speed:.1f} tokens/s)")
    terminal.line()


if __name__ == "__main__":
    sys.exit(main())
