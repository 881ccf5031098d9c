"""A demonstration in a terminal: quantize the bundled model, ask it one question, and print the folder of the result.

`packaging/bootstrap.py run` starts this module if no window can be opened. It uses the public functions of `core.api`
only.
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
    """Run the demo and return the exit code. The only argument, which is optional, is the output folder."""
    given = sys.argv[1:] if arguments is None else arguments
    terminal = Terminal()
    if len(given) > 1 or any(word.startswith("-") for word in given):
        terminal.print_error(
            "The demo takes at most one argument, the output folder.", "Omit it to use the default folder."
        )
        return 2
    began = time.monotonic()
    output = Path(given[0]) if given else free_name(home() / "models" / "demo-4bit")
    try:
        terminal.line("Quantizing SmolLM2-135M-Instruct (Apache-2.0, part of the installation) to 4 bits per weight,")
        terminal.line("block by block, tuned on a bundled text. About three minutes on two cores; Ctrl-C stops.")
        terminal.line()
        actions.quantize(terminal, "demo", output, {"recipe": "quick", "group_size": 64, "name": "demo"})
        terminal.line()
        _ask_question(terminal, output)
    except Cancelled:
        terminal.print_error("Stopped. Unfinished output was removed.")
        return 130
    except BitwrightError as error:
        terminal.error(error)
        return 1
    terminal.line(f"Total time: {duration(time.monotonic() - began)}.")
    terminal.line(f"Chat with it:  python3 packaging/bootstrap.py exec bitwright chat {shlex.quote(str(output))}")
    return 0


def _ask_question(terminal: Terminal, model: Path) -> None:
    """Ask the quantized model one question and print the answer with its speed."""
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
