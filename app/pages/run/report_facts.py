"""The figures of a report for display. Pure functions that accept reports of any version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from app.shared.formats import words as format_words
from core.formats.names import folder_name, is_gguf
from core.model.towers import TITLES
from core.report.verdict import is_outdated
from core.wording import duration, figure, human

_ARROW = "\N{RIGHTWARDS ARROW}"


@dataclass(frozen=True)
class OutputFile:
    """A file of the output: its relative path and its size in bytes."""

    path: str
    size: int


@dataclass(frozen=True)
class OutputFormat:
    """A format that a run wrote.

    Attributes:
        title: name for display; folder: subfolder in the output, "" for the output itself.
        amount: bytes and bits per weight, as text.
        checked: result of the verification, "" if it was not verified.
        notes: remarks, and layers that fell back.
        schemes: number of layers per scheme, as text.
    """

    title: str
    folder: str
    amount: str
    checked: str
    notes: tuple[str, ...]
    schemes: str


def formats_of(report: Mapping[str, Any]) -> list[OutputFormat]:
    """Return the formats of the output, in the order in which they were written."""
    sizes, verified = _mapping(report.get("output_bytes")), _mapping(report.get("verification"))
    rates, notes = _mapping(report.get("format_bits_per_weight")), _mapping(report.get("notes"))
    tensors = _mapping(report.get("layer_schemes"))
    found = []
    for name, size in sizes.items():
        rate = rates.get(name, report.get("bits_per_weight") if len(sizes) == 1 else None)
        amount = [human(_integer(size))]
        if isinstance(rate, int | float):
            amount.append(f"{rate:.2f} bits per weight")
        said = notes.get(name)
        found.append(
            OutputFormat(
                title=format_words.title(name),
                folder=folder_name(name) if len(sizes) > 1 else "",
                amount=", ".join(amount),
                checked=_checked(_mapping(verified.get(name))),
                notes=(
                    *(note for note in (said if isinstance(said, list) else ()) if isinstance(note, str)),
                    *_copied(report, name),
                ),
                schemes=", ".join(
                    f"{_integer(count):,} {label}" for label, count in _mapping(tensors.get(name)).items()
                ),
            )
        )
    return found


def provenance(report: Mapping[str, Any], output: str) -> str:
    """Return a line with the original model, the scheme and the output folder."""
    model = report.get("model")
    name = PurePath(model).name if isinstance(model, str) and model else "The model"
    return f"{name}, quantized to {_bits(report)}, in {output}"


def facts_of(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return names and values of the most important figures."""
    before = _integer(report.get("source_bytes"))
    sizes = [_integer(size) for size in _mapping(report.get("output_bytes")).values()]
    found = []
    if sizes:
        after = sizes[0]
        share = f" ({100 * after / before:.0f} %)" if before else ""
        found.append(("Size", f"{human(before)} {_ARROW} {human(after)}{share}" if before else human(after)))
    bits = report.get("bits_per_weight")
    if isinstance(bits, int | float):
        found.append(("Bits per weight", f"{bits:.2f}"))
    seconds, memory = report.get("seconds"), _integer(report.get("peak_memory"))
    if isinstance(seconds, int | float):
        found.append(("Time", duration(seconds)))
    if memory:
        found.append(("Peak memory", human(memory)))
    settings = _mapping(report.get("settings"))
    recipe = _mapping(settings.get("recipe")).get("name")
    if isinstance(recipe, str) and recipe:
        found.append(("Recipe", recipe))
    return found


def fact_tips(report: Mapping[str, Any]) -> dict[str, str]:
    """Return exact values for tooltips, by the names of `facts_of`."""
    tips = {"Bits per weight": "Average of the quantized weights, including scales"}
    before = _integer(report.get("source_bytes"))
    lines = [f"{before:,} bytes before"] if before else []
    for name, size in _mapping(report.get("output_bytes")).items():
        lines.append(f"{_integer(size):,} bytes as {format_words.title(name)}")
    tips["Size"] = "\n".join(lines)
    recipe = _mapping(_mapping(report.get("settings")).get("recipe"))
    text = [f"{recipe[key]} {word}" for key, word in (("iters", "steps"), ("samples", "texts")) if key in recipe]
    if "seqlen" in recipe:
        text.append(f"of {recipe['seqlen']} tokens")
    tips["Recipe"] = ", ".join(text)
    return tips


def verified_words(report: Mapping[str, Any]) -> tuple[str, bool, str]:
    """Return the result of the verification, whether there was one, and the sample text or ""."""
    verified = _mapping(report.get("verification"))
    if not verified:
        if is_outdated(report):
            return "The report does not contain the results of the verification.", False, ""
        return "The written files were not verified.", False, ""
    layers = sum(_integer(_mapping(item).get("layers")) for item in verified.values())
    others = sum(_integer(_mapping(item).get("other_tensors")) for item in verified.values())
    formats = f" in {len(verified)} formats" if len(verified) > 1 else ""
    found = f"{layers:,} layers and {others:,} other tensors are correct"
    words = f"\N{CHECK MARK} Verified{formats}: {found}."
    sample = next((item.get("sample") for item in map(_mapping, verified.values()) if item.get("sample")), "")
    line = " ".join(sample.split())[:400] if isinstance(sample, str) else ""
    return words, True, f"Sample: \u201c{line}\u201d" if line else ""


def files_of(report: Mapping[str, Any]) -> list[OutputFile]:
    """Return the files of the output, the largest first."""
    files = _mapping(report.get("files"))
    found = [OutputFile(str(path), _integer(size)) for path, size in files.items()]
    return sorted(found, key=lambda file: (-file.size, file.path))


def fallbacks_of(report: Mapping[str, Any]) -> list[str]:
    """Return the deviations from the bits map, one text per reason."""
    layers: dict[str, list[str]] = {}
    for name, reason in _mapping(report.get("fallbacks")).items():
        layers.setdefault(str(reason), []).append(str(name))
    return [
        f"{names[0]}: {reason}" if len(names) == 1 else f"{len(names)} layers: {reason}"
        for reason, names in layers.items()
    ]


def _copied(report: Mapping[str, Any], format_name: str) -> list[str]:
    """Return sentences about the parts of a multimodal model besides its language model; none for GGUF."""
    towers = report.get("towers")
    copied, rounded = [], []
    for item in map(_mapping, towers if isinstance(towers, list) and not is_gguf(format_name) else ()):
        title = next((title for kind, title in TITLES.items() if kind == item.get("kind")), TITLES["other"])
        place = f"{title} ({item.get('prefix', '')}, {human(_integer(item.get('nbytes')))})"
        counts = [f"{_integer(count)} layers in {bits} bits" for bits, count in _mapping(item.get("bits")).items()]
        if counts:
            rounded.append(f"Rounded without calibration: {', '.join(counts)} of the {place}.")
        else:
            copied.append(place)
    return [*rounded, *([f"Copied unchanged: {', '.join(copied)}."] if copied else [])]


def _checked(verified: Mapping[str, Any]) -> str:
    """Return the result of the verification of one format."""
    if not verified:
        return ""
    words = f"{_integer(verified.get('layers')):,} layers and {_integer(verified.get('other_tensors')):,} other tensors"
    found = _mapping(verified.get("rounded")).items()
    rounded = "".join(f", {name} rounded to {str(kind).upper()}" for name, kind in found)
    perplexity = verified.get("perplexity")
    again = f"; perplexity of the files {figure(perplexity)}" if isinstance(perplexity, int | float) else ""
    return f"\N{CHECK MARK} Verified: {words}{rounded}{again}"


def _bits(report: Mapping[str, Any]) -> str:
    counts = {key: count for key, count in _mapping(report.get("layers_by_bits")).items() if key != "16"}
    if not counts:
        return "fewer bits"
    if len(counts) == 1:
        return f"{next(iter(counts))} bits"
    parts = sorted(counts, key=lambda key: (len(key), key))
    return f"{', '.join(parts[:-1])} and {parts[-1]} bits"


def _integer(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
