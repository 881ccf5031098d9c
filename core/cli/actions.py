"""The sub-commands `quantize`, `inspect`, `estimate`, `jobs`, `eval` and `convert`.

Each function calls `core.api` and prints the result.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from core import api
from core.cli.terminal import Interrupts, Terminal, sizes_line
from core.estimation.costs import BUSY, Range
from core.events import Done, Event, Result
from core.model.fused_experts import EXPERT
from core.model.towers import TITLES, inputs_of
from core.model.tree import TOWER, LayerPlan, Linear, ModelTree
from core.report.loading_snippets import folder_to_open
from core.wording import count, duration, figure, human


def quantize(terminal: Terminal, model: str, output: Path, options: dict[str, Any]) -> None:
    """Run a job in a child process, show its progress and print a summary of the result."""
    done = terminal.follow(lambda should_stop: api.quantize(model, output, **options, should_stop=should_stop))
    if isinstance(done, Done):
        summary(terminal, done)


def summary(terminal: Terminal, done: Done) -> None:
    """Print the summary of a run: output folder, sizes, perplexity and time."""
    report = done.report
    terminal.line(f"{done.output}")
    rates = report.get("format_bits_per_weight", {})
    for name, size in report["output_bytes"].items():
        rate = f"{rates.get(name, report['bits_per_weight']):.3g} bits per weight in the quantized layers"
        terminal.line(f"  {name:<11} {sizes_line(report['source_bytes'], size)}, {rate}")
    perplexity = report["perplexity"]
    change = f"{figure(perplexity['original'])} -> {figure(perplexity['quantized'])}"
    terminal.line(f"  perplexity  {change} on text that was not used for calibration")
    terminal.line(f"  time        {duration(done.seconds)}")
    for notes in report.get("notes", {}).values():
        for note in notes:
            terminal.line(f"  note        {note}")
    folder = folder_to_open(report, done.output)
    terminal.line(f"  chat        bitwright chat {shlex.quote(str(folder))}")


def inspect(terminal: Terminal, model: str, options: dict[str, Any]) -> None:
    """Print the layers of a model and the scheme that each would be quantized to."""
    with terminal.libraries_to_stderr(), Interrupts() as interrupts:
        found = api.inspect(model, emit=_events(terminal), should_stop=interrupts.requested, **options)
    if terminal.json:
        terminal.event(Result(found.to_json()))
        return
    tree = found.tree
    stored = sum(tensor.nbytes for tensor in tree.tensors.values())
    terminal.line(f"{found.model}  ({found.origin}{': ' + found.note if found.note else ''})")
    head = "output layer tied to the embedding" if tree.tied else "separate output layer"
    terminal.line(f"{tree.architecture or tree.model_type or 'unknown architecture'}, {head}")
    blocks = f"{tree.blocks} blocks in {tree.prefix}" if tree.blocks else "no blocks"
    held = f"{human(found.file_bytes)} in the file, {human(stored)} at 16 bits" if found.file_bytes else human(stored)
    terminal.line(f"{tree.parameters / 1e6:.4g} M parameters, {held}, {blocks}")
    if any(tree.experts):
        chosen = f", {tree.experts_per_token} for each token" if tree.experts_per_token else ""
        mixtures = sum(map(bool, tree.experts))
        terminal.line(f"{max(tree.experts)} experts in {mixtures} of {tree.blocks} blocks{chosen}")
    if tree.towers:
        some = any(plan.linear.block == TOWER and plan.scheme.quantized for plan in found.plans)
        copied = "copied, except for the layers listed below" if some else "copied unchanged"
        terminal.line(f"reads {', '.join(inputs_of(tree.towers))}; these parts are {copied}:")
        parts = [(tower.prefix, TITLES[tower.kind], human(tower.nbytes), tower.dtype) for tower in tree.towers]
        terminal.table(("part", "kind", "size", "dtype"), parts)
    if tree.refusal:
        terminal.line(f"Cannot be quantized: {tree.refusal}")
    elif found.size is not None:
        size = found.size
        before = found.file_bytes or size.source
        terminal.line(f"quantized: {sizes_line(before, size.total)}, {size.effective_bits:.3g} bits per weight")
        if found.warning:
            terminal.line(f"warning: {found.warning}")
        if found.unchecked:
            terminal.line(f"note: {found.unchecked}")
    terminal.line()
    plans = {plan.linear.name: plan for plan in found.plans}
    listed = (plan.linear for plan in found.plans if plan.linear.block != TOWER or plan.scheme.quantized)
    rows = _rows(tree, tuple(listed) or tree.linears, plans)
    titles = ("blocks", "layer", "out x in", "dtype", "quantized to", "reason", "slice of")
    columns = len(titles) if any(row[-1] for row in rows) else len(titles) - 1
    terminal.table(titles[:columns], [row[:columns] for row in rows])


def estimate(terminal: Terminal, model: str, options: dict[str, Any]) -> None:
    """Print the disk space, memory and time that a run needs."""
    with terminal.libraries_to_stderr(), Interrupts() as interrupts:
        needed = api.estimate(model, emit=_events(terminal), should_stop=interrupts.requested, **options)
    if terminal.json:
        terminal.event(Result(needed.to_json()))
        return
    rows = [
        ("disk", _bytes_range(needed.disk)),
        ("memory", _bytes_range(needed.ram)),
        ("device memory", _bytes_range(needed.device) if needed.device.high else "-"),
        ("time", f"{duration(needed.seconds.low)} to {duration(needed.seconds.high)}" if needed.seconds else "unknown"),
    ]
    if needed.tokens_per_expert is not None:
        rows.append(("tokens per expert", f"about {count(round(needed.tokens_per_expert))} of the calibration text"))
    terminal.table(("resource", "estimate"), rows)
    if needed.load > BUSY:
        terminal.line(
            f"Other programs used {100 * needed.load:.0f} % of the CPU while the speed was measured. "
            "The range of time covers an idle computer and one that stays as busy."
        )
    if needed.warning:
        terminal.line(f"warning: {needed.warning}")


_STATES = {"elsewhere": "on another machine"}
"""Names of job states in the table, where they differ from the names in JSON."""


def jobs(terminal: Terminal) -> None:
    """Print the list of runs, the newest first."""
    found = api.list_jobs()
    rows = []
    for job in found:
        spec = job.spec
        if terminal.json:
            value = {"id": job.id, "state": job.state, "folder": str(job.folder)}
            terminal.event(Result({**value, "spec": spec.to_json() if spec else None}))
        when = job.created.astimezone().strftime("%Y-%m-%d %H:%M")
        name, model, output = (spec.name, spec.model, spec.output) if spec else ("", "?", "?")
        rows.append((when, _STATES.get(job.state, job.state), name, model, output))
    if rows:
        terminal.table(("started", "state", "name", "model", "output"), rows)
    else:
        terminal.line("There are no runs yet.")


def evaluate(terminal: Terminal, model: str, options: dict[str, Any]) -> None:
    """Show a perplexity, or two and how far apart they are."""
    found = terminal.follow(lambda should_stop: api.evaluate(model, should_stop=should_stop, **options))
    values = found.values if isinstance(found, Result) else {}
    rows = []
    for key in ("perplexity", "against"):
        if one := values.get(key):
            value = f"{one['value']:.4g} +- {one['standard_error']:.2g}"
            rows.append((one["model"], value, f"{one['tokens']} of {one['text']}"))
    terminal.table(("model", "perplexity", "tokens"), rows)
    if apart := values.get("comparison"):
        _comparison(terminal, apart, values.get("noise_floor"))


def _comparison(terminal: Terminal, apart: dict[str, Any], floor: dict[str, Any] | None) -> None:
    """Print the distance of a model from its reference, beside the noise floor."""
    found = [apart, floor] if floor else [apart]
    titles = ("figure", "model", f"reference in {floor['dtype']}") if floor else ("figure", "model")
    terminal.line("Distance from the reference model, +- one standard error:")
    rows = [
        ("KL divergence, mean", *(f"{one['kl_mean']:.4g} +- {one['kl_standard_error']:.2g} nats" for one in found)),
        ("KL divergence, median", *(f"{one['kl_median']:.3g}" for one in found)),
        ("KL divergence, 90th percentile", *(f"{one['kl_p90']:.3g}" for one in found)),
        ("KL divergence, 99th percentile", *(f"{one['kl_p99']:.3g}" for one in found)),
        ("top-1 agreement", *(f"{100 * one['top1']:.1f} +- {100 * one['top1_standard_error']:.1f} %" for one in found)),
        ("perplexity ratio", *(_with_error(one, "perplexity_ratio", ".4f") for one in found)),
        ("loss increase per token", *(_with_error(one, "loss_increase", "+.4f") + " nats" for one in found)),
        ("positions", *(f"{one['positions']} in {one['windows']} windows" for one in found)),
    ]
    terminal.table(titles, rows)


def _with_error(values: dict[str, Any], key: str, form: str) -> str:
    return f"{values[key]:{form}} +- {values[f'{key}_standard_error']:.4f}"


def convert(terminal: Terminal, model: str, target: Path, format_name: str, *, inexact: bool) -> None:
    """Convert a model to another format and print a summary."""
    done = terminal.follow(
        lambda should_stop: api.convert(model, target, format_name, inexact=inexact, should_stop=should_stop)
    )
    if isinstance(done, Done):
        converted(terminal, done)


def converted(terminal: Terminal, done: Done) -> None:
    """Print the summary of a conversion: output folder, formats, error of the weights and sizes."""
    report = done.report
    terminal.line(f"{done.output}")
    terminal.line(f"  format   {report['source_kind']} -> {report['format']}")
    error = report["error"]
    if error is None:
        terminal.line("  weights  exact to the bit")
    else:
        worst = error["worst_tensor"]
        rms = f"{100 * error['relative_rms']:.3g} % (relative root mean square error)"
        terminal.line(f"  weights  changed by {rms}, largest difference {error['largest_difference']:.3g}")
        terminal.line(f"           worst tensor {worst['name']}: {100 * worst['relative_rms']:.3g} %")
    terminal.line(f"  size     {sizes_line(report['source_bytes'], report['output_bytes'])}")
    for note in report["notes"]:
        terminal.line(f"  note     {note}")


def conversions(terminal: Terminal, model: str) -> None:
    """Print the formats that a model can be converted to."""
    with terminal.libraries_to_stderr(), Interrupts() as interrupts:
        found = api.conversions(model, emit=_events(terminal), should_stop=interrupts.requested)
    if terminal.json:
        terminal.event(Result(found.to_json()))
        return
    source = found.source
    layers = ", ".join(f"{number} {label}" for label, number in source.layers.items()) or "no quantized layers"
    terminal.line(f"{source.label}: {source.kind}, {human(source.nbytes)}, {layers}")
    terminal.line()
    verdicts = {"exact": "exactly", "inexact": "with an error", "no": "no"}
    rows = [
        (option.format, verdicts[option.verdict], human(option.nbytes) if option.nbytes else "-", option.reason)
        for option in found.options
    ]
    terminal.table(("format", "possible", "size", "reason"), rows)


def _events(terminal: Terminal) -> Any:
    """Return a callback that prints the log lines and stages of a command; its result is printed by the caller."""

    def show(event: Event) -> None:
        if not isinstance(event, Done | Result):
            terminal.event(event)

    return show


def _rows(tree: ModelTree, linears: tuple[Linear, ...], plans: dict[str, LayerPlan]) -> list[tuple[str, ...]]:
    """Return one row per group of blocks in which a layer kind has the same shape, data type, scheme and reason.

    Experts with the same values are one row: `mlp.experts.*.up_proj (128)`, or `mlp.experts.0-3.up_proj` for some.
    """
    blocks_of: dict[tuple[str, ...], dict[str, list[int]]] = {}
    experts: dict[str, set[str]] = {}
    for linear in linears:
        plan = plans.get(linear.name)
        becomes = plan.scheme.label() if plan else "-"
        because = (plan.fallback or plan.why) if plan else linear.kept
        shape = f"{linear.out_features}x{linear.in_features}"
        match = EXPERT.search(linear.kind)
        kind = EXPERT.sub("experts.*", linear.kind)
        number = match[1] if match else ""
        experts.setdefault(kind, set()).add(number)
        key = (kind, shape, linear.dtype, becomes, because, _stored_in(tree, linear))
        blocks_of.setdefault(key, {}).setdefault(number, []).append(linear.block)
    rows = []
    for (kind, *values), by_expert in blocks_of.items():
        groups: dict[tuple[int, ...], list[str]] = {}
        for number, found in by_expert.items():
            groups.setdefault(tuple(found), []).append(number)
        for blocks, numbers in groups.items():
            label = kind
            if numbers != [""]:
                every = len(numbers) == len(experts[kind])
                label = f"{kind} ({len(numbers)})" if every else kind.replace("*", _spans(list(map(int, numbers))), 1)
            rows.append((_spans(list(blocks)), label, *values))
    return rows


def _stored_in(tree: ModelTree, linear: Linear) -> str:
    """Return the tensor inside the block whose slice is the weight; "" if the layer has a tensor of its own name."""
    part = linear.part
    if part is None:
        return ""
    name = EXPERT.sub("experts.*", part.tensor.removeprefix(f"{tree.prefix}.{linear.block}.").removesuffix(".weight"))
    shape = tree.tensors[part.tensor].shape
    if part.expert is None or len(shape) != 3:
        return name
    start, stop, step = part.rows
    outputs = shape[2 if part.transposed else 1]
    rows = "" if (start, stop, step) == (0, outputs, 1) else f"{start}:{stop}{f':{step}' if step > 1 else ''}"
    return f"{name}[*, {':, ' if part.transposed else ''}{rows or ':'}]"


def _spans(numbers: list[int]) -> str:
    """Format block numbers as ranges: `0-3, 7` for 0 1 2 3 7; "-" for layers outside the blocks (-1)."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(_span(low, high) for low, high in spans)


def _span(low: int, high: int) -> str:
    if low < 0:
        return "-"
    return str(low) if low == high else f"{low}-{high}"


def _bytes_range(value: Range) -> str:
    return f"{human(value.low)} to {human(value.high)}"
