"""The model card (README.md) of an output: description, settings, quality loss and how to load it.

Built from the report of the run and the card of the source model. All numbers are from the report; unknown ones are
left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.formats.names import is_gguf, mix_of
from core.hub.card import license_of, read_text
from core.model.general import read_facts
from core.model.towers import TITLES
from core.report.experts import expert_notes, mixtures
from core.report.loading_snippets import snippets
from core.report.verdict import judge
from core.wording import duration, human

CARD = "README.md"
_DEMO_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
_DEMO_LICENSE = "apache-2.0"
_ENGINES = 4
_UNTUNED = {
    "range": "plain rounding",
    "search": "plain rounding after a search for each scale",
    "gptq": "rounding with error feedback (GPTQ) and scales fitted by least squares",
}
"""Description of a recipe without tuning steps, by its start."""
_FILE_TAGS = frozenset({
    "text-generation", "transformers", "safetensors", "gguf", "llama-cpp", "gguf-my-repo", "auto-round", "awq", "gptq",
})  # fmt: skip
"""Tags of the source model that are not copied: they describe its format, or the card has them elsewhere."""


def model_card(report: Mapping[str, Any], format_name: str, name: str, source: Path) -> str:
    """Return the card of one output as Markdown with the Hub's metadata.

    Args:
        report: report of the run (`core.quant.report`).
        format_name: format of the output.
        name: name of the output: the last part of its path.
        source: folder of the source model, from which license, languages and tags are copied.
    """
    parts = [
        f"# {_plain(name)}",
        _description(report, format_name),
        "## Settings",
        _table(("", ""), _facts(report)),
        "## Bits",
        _table(("layers", "stored as"), _bits(report, format_name)),
        *_remarks(report, format_name),
        *_experts(report),
        "## Quality",
        _loss(report, format_name),
        "## How to load it",
        *_loading(report, format_name, name),
    ]
    return _metadata(report, format_name, source) + "\n\n".join(part for part in parts if part) + "\n"


def conversion_card(report: Mapping[str, Any], name: str, source: Path) -> str:
    """Return the card of a converted output.

    Args:
        report: report of the conversion (`core.conversion.convert`), which includes the report of the run if Bitwright
            created the source.
        name, source: as in `model_card`.
    """
    written = str(report.get("format", ""))
    run = _mapping(report.get("source_report"))
    run = run if run.get("kind") is None else {}
    notes = [_plain(str(note)) for note in report.get("notes") or []]
    own = {"output_bytes": {written: report.get("output_bytes", 0)}, "files": report.get("files")}
    shown = {**run, **own, "layer_schemes": report.get("layer_schemes")}
    parts = [
        f"# {_plain(name)}",
        _converted(report, written),
        "## Bits",
        _table(("layers", "stored as"), _bits(shown, written)),
        "\n".join(f"- {note}" for note in notes),
        *(
            ["## How it was quantized", _table(("", ""), _facts(run)), _loss({**run, "verification": {}}, "")]
            if run
            else []
        ),
        "## How to load it",
        *_loading(shown, written, name),
    ]
    facts = {
        **report,
        "model": run.get("model", report.get("model")),
        "origin": run.get("origin", report.get("origin")),
    }
    return _metadata(facts, written, source) + "\n\n".join(part for part in parts if part) + "\n"


def _converted(report: Mapping[str, Any], written: str) -> str:
    model, kind = _plain(str(report.get("model", "A model"))), _plain(str(report.get("source_kind", "")))
    start = f"{model}, converted from {kind} to `{written}` by Bitwright."
    error = _mapping(report.get("error"))
    if not error:
        return f"{start} All weights are bit-identical, which was verified after writing."
    largest, share = error.get("largest_difference"), error.get("relative_rms")
    if not isinstance(largest, int | float) or not isinstance(share, int | float):
        return f"{start} Some weights have changed."
    reason = _plain(str(report.get("reason", "")))
    return (
        f"{start} Weights changed: {reason} The largest difference is {largest:.3g}, the relative RMS difference "
        f"{100 * share:.3g} %."
    )


def _metadata(report: Mapping[str, Any], format_name: str, source: Path) -> str:
    """Return the YAML metadata of the Hub."""
    from huggingface_hub import ModelCardData

    demo = report.get("origin") == "demo"
    family = "gguf" if is_gguf(format_name) else format_name.partition(":")[0].replace("_", "-")
    base = _DEMO_MODEL if demo else str(report.get("model")) if report.get("origin") == "hub" else None
    facts = read_facts(source)
    stated = license_of(read_text(source)) or facts.get("license")
    license_name = _DEMO_LICENSE if demo else stated if isinstance(stated, str) else None
    own = ["bitwright", "quantized", family]
    theirs = [tag for tag in _listed(facts.get("tags")) if tag not in own and tag not in _FILE_TAGS]
    data: Any = ModelCardData(
        base_model=base,
        license=license_name,
        library_name="gguf" if is_gguf(format_name) else "transformers",
        pipeline_tag="image-text-to-text" if _reads_pictures(report, format_name) else "text-generation",
        tags=[*own, *theirs],
        language=_listed(facts.get("languages")) or None,
        base_model_relation="quantized" if base else None,
    )
    return f"---\n{data.to_yaml()}\n---\n\n"


def _listed(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _description(report: Mapping[str, Any], format_name: str) -> str:
    model = _plain(str(report.get("model", "a model")))
    rate = _mapping(report.get("format_bits_per_weight")).get(format_name, report.get("bits_per_weight"))
    bits = f" to {rate:.3g} bits per weight in its quantized layers" if isinstance(rate, int | float) else ""
    size = _mapping(report.get("output_bytes")).get(format_name)
    before = report.get("source_bytes")
    sizes = f" The files take {human(size)}" if isinstance(size, int) else ""
    if sizes:
        sizes += f"; the original takes {human(before)}." if isinstance(before, int) and before else "."
    note = f" {_plain(str(report['source_note']))}" if report.get("source_note") else ""
    kind = f"`{format_name}`" if not mix_of(format_name) else f"GGUF, {mix_of(format_name).upper()}"
    return f"{model}, quantized{bits} by Bitwright{_method(report)}. Format: {kind}.{sizes}{note}"


def _method(report: Mapping[str, Any]) -> str:
    """Return a description of the method used for this checkpoint."""
    recipe = _mapping(_mapping(report.get("settings")).get("recipe"))
    if recipe.get("start") == "gptq" and recipe.get("iters") != 0:
        return ", which rounds with error feedback (GPTQ) and tunes the scales against the original's outputs"
    if recipe.get("iters") != 0:
        return ", which tunes the rounding of each block against the original's outputs (SignRound, arXiv 2309.05516)"
    return f" with {_UNTUNED[str(recipe.get('start', 'range'))]}"


def _facts(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    settings = _mapping(report.get("settings"))
    recipe, text = _mapping(settings.get("recipe")), _mapping(report.get("calibration"))
    steps = recipe.get("iters")
    method = f"{recipe.get('name') or 'custom'}"
    if isinstance(steps, int):
        samples = f" of {recipe.get('batch_size')} samples, {recipe.get('seqlen')} tokens each"
        method += f": {steps} steps{samples}" if steps else f": {_UNTUNED[str(recipe.get('start', 'range'))]}"
    rows = [
        ("base model", _plain(str(report.get("model", "")))),
        ("architecture", str(report.get("architecture", ""))),
        ("recipe", method),
        ("seed", str(report.get("seed", ""))),
        (
            "calibration",
            f"{text.get('source')}, {text.get('tokens', 0):,} tokens, {text.get('documents', 0):,} documents",
        ),
        ("calibration tokens, SHA-256", f"`{text.get('sha256', '')}`"),
        ("computed on", f"{settings.get('device', '')}, {settings.get('dtype', '')}"),
    ]
    seconds = report.get("seconds")
    return rows + ([("duration", duration(seconds))] if isinstance(seconds, int | float) else [])


def _bits(report: Mapping[str, Any], format_name: str) -> list[tuple[str, str]]:
    counts = _mapping(_mapping(report.get("layer_schemes")).get(format_name))
    rows = [(str(number), label) for label, number in sorted(counts.items(), key=lambda item: -item[1])]
    left = _mapping(report.get("layers_by_bits")).get("16", 0)
    rows += [(str(left), "16 bits, as in the original")] if left else []
    return rows if is_gguf(format_name) else [*rows, *_towers(report)]


def _reads_pictures(report: Mapping[str, Any], format_name: str) -> bool:
    kinds = {_mapping(item).get("kind") for item in report.get("towers") or []}
    return "vision" in kinds and not is_gguf(format_name)


def _towers(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return a row for each part of a multimodal model besides its language model."""
    rows = []
    for item in (_mapping(item) for item in report.get("towers") or []):
        bits = sorted(_mapping(item.get("bits")))
        kept = (
            f"linear layers in {' and '.join(bits)} bits, the rest as in the original" if bits else "as in the original"
        )
        rows.append((f"`{_plain(str(item['prefix']))}`", f"{TITLES[item['kind']]}, {human(item['nbytes'])}, {kept}"))
    return rows


def _remarks(report: Mapping[str, Any], format_name: str) -> list[str]:
    remarks = [str(note) for note in _mapping(report.get("notes")).get(format_name, [])]
    reasons: dict[str, int] = {}
    for reason in _mapping(report.get("fallbacks")).values():
        reasons[str(reason)] = reasons.get(str(reason), 0) + 1
    remarks += [f"{count} {'layer' if count == 1 else 'layers'}: {reason}." for reason, count in reasons.items()]
    return ["\n".join(f"- {_plain(line)}" for line in remarks)] if remarks else []


def _experts(report: Mapping[str, Any]) -> list[str]:
    """Return the section on the experts of a mixture; [] for a model without experts."""
    found = mixtures(report)
    if not found:
        return []
    rows = [
        (f"`{_plain(mixture.name)}`", mixture.spread, ", ".join(map(str, mixture.not_tuned)) or "none")
        for mixture in found
    ]
    head = ("experts", "calibration tokens per expert", "not tuned, by number")
    return ["## Experts", " ".join(expert_notes(report)), _table(head, rows)]


def _loss(report: Mapping[str, Any], format_name: str) -> str:
    values = _mapping(report.get("perplexity"))
    verdict = judge(report)
    lines = [f"{verdict.headline}. {verdict.figures} {verdict.meaning}".strip()]
    if values.get("text"):
        lines.append(f"Perplexity on {values['text']} in rows of at most 512 tokens; lower is better.")
    checked = _mapping(_mapping(report.get("verification")).get(format_name))
    if checked:
        lines.append(
            f"Verified after writing: {checked.get('layers', 0):,} quantized layers equal to the tuned ones, "
            f"{checked.get('other_tensors', 0):,} other tensors equal to the original's{_rounded(checked)}; "
            f"perplexity of the output {checked.get('perplexity', 0):.4g}."
        )
    learned = _mapping(report.get("end_to_end"))
    if learned.get("kept"):
        steps, text = learned.get("steps", 0), values.get("text", "held-out text")
        lines.append(
            f"All scales and {len(learned.get('norms', ())):,} norms were tuned together in {steps:,} steps: "
            f"KL divergence to the original on {text} "
            f"{learned.get('heldout_kl_before', 0):.4g} before and {learned.get('heldout_kl_after', 0):.4g} after them."
        )
    return "\n\n".join(lines)


def _rounded(checked: Mapping[str, Any]) -> str:
    """Return the tensors rounded without tuning, as the continuation of a list, or ""."""
    found = _mapping(checked.get("rounded"))
    return "".join(f", {_plain(str(name))} rounded to {_plain(str(kind)).upper()}" for name, kind in found.items())


def _loading(report: Mapping[str, Any], format_name: str, name: str) -> list[str]:
    """Return the snippets to load the output from its parent folder."""
    one = {**report, "output_bytes": {format_name: _mapping(report.get("output_bytes")).get(format_name, 0)}}
    found = [snippet for snippet in snippets(one, name) if snippet.code][:_ENGINES]
    parts = []
    for snippet in found:
        parts += [f"**{snippet.name}.** {snippet.note}", f"```{snippet.language}\n{snippet.code.rstrip()}\n```"]
    return parts


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return a table of the rows whose last cell is not empty."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(map(_cell, row))} |" for row in rows if row[-1])])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _plain(text: str) -> str:
    """Return the text as one line without Markdown or HTML syntax, because names may be untrusted."""
    return " ".join(text.split()).replace("<", "&lt;").replace("`", "'")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
