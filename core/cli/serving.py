"""The sub-commands `serve` and `bench`. Each calls `core.api` and prints its events."""

from __future__ import annotations

from typing import Any

from core import api
from core.cli.terminal import Interrupts, Terminal
from core.cli.user_input import read_text
from core.events import Listening, Result
from core.wording import human


def serve(
    terminal: Terminal, model: str, options: dict[str, Any], token_file: str | None = None, *, shown: bool = False
) -> None:
    """Serve a model until Ctrl-C, which is the normal end and not an error.

    Args:
        token_file: File with the API key, or `-` for stdin; replaces the one in `options`.
        shown: The API key was given on the command line.
    """
    if shown:
        terminal.warn(
            "Other users of this computer can see --token in the list of processes. "
            "Use BITWRIGHT_TOKEN or --token-file instead."
        )
    if token_file is not None:
        options = {**options, "token": read_text(terminal, token_file).strip()}
    with terminal.libraries_to_stderr(), Interrupts() as interrupts:
        for event in api.serve(model, should_stop=interrupts.requested, **options):
            if isinstance(event, Listening) and not terminal.json:
                _print_connection(terminal, event)
            else:
                terminal.event(event)


def _print_connection(terminal: Terminal, event: Listening) -> None:
    terminal.line(f"model   {event.model}")
    terminal.line(f"URL     {event.url}/v1")
    terminal.line(f"token   {event.token}")
    terminal.line("Press Ctrl-C to stop the server.")


def bench(terminal: Terminal, model: str, options: dict[str, Any]) -> None:
    """Measure the prefill and decode speed of a model and print it as a table."""
    found = terminal.follow(lambda should_stop: api.bench(model, should_stop=should_stop, **options))
    if terminal.json or not isinstance(found, Result):
        return
    values = found.values
    terminal.line(f"{values['device_name']}, {values['backend']}, {values['dtype']}")
    rows = [
        (
            str(row["prompt_tokens"]),
            f"{row['prefill_tokens_per_second']:.4g}",
            f"{row['first_token_seconds']:.3g}",
            f"{row['decode_tokens_per_second']:.4g}",
            human(row["memory_bytes"]),
            "-" if row["bandwidth_share"] is None else f"{100 * row['bandwidth_share']:.0f} %",
        )
        for row in values["rows"]
    ]
    head = ("prompt tokens", "prefill tok/s", "first token s", "decode tok/s", "memory", "bandwidth")
    terminal.table(head, rows)
    terminal.line(f"memory bandwidth: {human(int(values['memory_bandwidth']))}/s")
    if values["report_path"]:
        terminal.line(f"saved in {values['report_path']}")
