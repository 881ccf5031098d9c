"""Deterministic mutations of the files of a quantized model, for the fuzz tests of the readers."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Mapping
from typing import Any

Files = dict[str, bytes]

HOSTILE_PATTERNS = [
    r"(x+x+)+y", r"(?:(?:x{1000}){1000}){1000}", r"(a*)*\1b", r"(.*.*)*!", r"(?:[a-z.0-9_]{1,30}){1,30}!", "(" * 2000,
    ".*" * 400 + "!", "[", "*", "(?R)", "(?i)(?-i:x)", "x{999999999999}", "\ud800", "(?=(.+)+!)", "a" * 100_000,
]  # fmt: skip

NASTY: list[Any] = [
    None, True, False, 0, -1, 1, 2, 3, 4, 5, 8, 16, 32, 64, 128, 2**31, 2**63, -(2**63), 10**30, 0.0, 4.0, 1e308,
    float("nan"), float("inf"), "", "4", "x", "\x00", "\ud800", "../../etc/passwd", "/dev/zero", "a" * 300,
    "é\n\x1b[2J", [], {}, [[]], [[[]]], {"": None}, {"bits": 4}, {"bits": 16}, [1, 2], ["x"], [2**62, 2**62], [0],
    [-1, 4], [0, 0], [True, True], [1] * 1000, [["model.layers.0"]], {"a": {"b": {"c": []}}}, "model.safetensors",
    "BF16", "F16", "I32",
    "U32", "F64", "I8", "F4", "gptq_v2", "gptq", "awq", "auto-round", "auto_round", "auto_round:auto_awq", "gemm",
    "auto_round:gptqmodel", "marlin", "x." * 500, *HOSTILE_PATTERNS,
]  # fmt: skip

KEYS = [
    "quant_method", "bits", "group_size", "sym", "desc_act", "static_groups", "dynamic", "extra_config",
    "packing_format", "checkpoint_format", "format", "version", "backend", "zero_point", "modules_to_not_convert",
    "w_bit", "q_group_size", "block_name_to_quantize", "to_quant_block_names", "model_file_base_name",
    "is_marlin_format", "pack_dtype", "act_bits", "data_type", "lm_head", "quantization_config", "rotation_config",
    "dtype", "shape", "data_offsets", "__metadata__", "weight_map", "metadata",
]  # fmt: skip


def mutate(files: Mapping[str, bytes], number: int) -> Files:
    """Return the files of a model after the mutations with the seed `number`."""
    rng = random.Random(number)
    made = dict(files)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        name = rng.choice(sorted(made))
        kinds = _OF_JSON if name.endswith(".json") else _OF_TENSORS
        made[name] = rng.choice(kinds)(rng, made[name])
    if rng.random() < 0.02:
        made.pop(rng.choice(sorted(made)))
    return made


def _flipped(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 8, 64])):
        if changed:
            changed[rng.randrange(len(changed))] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
    return bytes(changed)


def _cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _longer(rng: random.Random, data: bytes) -> bytes:
    place = rng.randrange(len(data) + 1)
    piece = bytes(rng.randrange(256) for _ in range(rng.choice([1, 8, 100])))
    return data[:place] + piece + data[place:]


def _moved(rng: random.Random, data: bytes) -> bytes:
    first, last = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    place = rng.randrange(len(data) + 1)
    return data[:place] + data[first:last][:4096] + data[place:]


def _without_object(rng: random.Random, data: bytes) -> bytes:
    return rng.choice([b"", b"null", b"[]", b"{}", b"3", b'""', b"[" * 5000, b'{"a":' * 3000, b"\xff\xfe", b"{" * 64])


def _json_text(rng: random.Random, data: bytes) -> bytes:
    return _restructured(rng, data) or _flipped(rng, data)


def _header_structure(rng: random.Random, data: bytes) -> bytes:
    """Change the JSON header and update its length."""
    length = int.from_bytes(data[:8], "little")
    text = _restructured(rng, data[8 : 8 + length])
    return data if text is None else len(text).to_bytes(8, "little") + text + data[8 + length :]


def _header_bytes(rng: random.Random, data: bytes) -> bytes:
    length = min(int.from_bytes(data[:8], "little"), len(data))
    return data[:8] + _flipped(rng, data[8 : 8 + length]) + data[8 + length :]


def _header_length(rng: random.Random, data: bytes) -> bytes:
    true = int.from_bytes(data[:8], "little")
    claim = rng.choice([0, 1, 2, true - 1, true + 1, len(data) - 8, len(data), 2**31, 2**63, 2**64 - 1, 100_000_001])
    return (claim % 2**64).to_bytes(8, "little") + data[8:]


def _values(rng: random.Random, data: bytes) -> bytes:
    """Change values of the tensors."""
    start = min(8 + int.from_bytes(data[:8], "little"), len(data))
    return data[:start] + _flipped(rng, data[start:])


_OF_JSON: list[Callable[[random.Random, bytes], bytes]] = [
    *[_json_text] * 12, _flipped, _cut, _longer, _moved, _without_object,
]  # fmt: skip
_OF_TENSORS: list[Callable[[random.Random, bytes], bytes]] = [
    *[_header_structure] * 6, *[_values] * 3, _header_bytes, _header_bytes, _header_length, _flipped, _cut, _longer,
    _moved,
]  # fmt: skip


def _restructured(rng: random.Random, text: bytes) -> bytes | None:
    """Remove, replace, rename, duplicate or add an entry of a JSON text; returns None if it is not valid JSON."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    for _ in range(rng.choice([1, 1, 2, 3])):
        _change(rng, value)
    return json.dumps(value).encode()


def _change(rng: random.Random, value: Any) -> None:
    """Change the value at a random position."""
    while isinstance(value, dict | list) and value:
        places = list(value) if isinstance(value, dict) else list(range(len(value)))
        place = rng.choice(places)
        inner, other = value[place], value[rng.choice(places)]
        if isinstance(inner, dict | list) and inner and rng.random() < 0.75:
            value = inner
            continue
        action = rng.randrange(5)
        if action == 0:
            del value[place]
        elif action == 1 and isinstance(value, dict):
            value[rng.choice([*KEYS, *places, *HOSTILE_PATTERNS])] = copy.deepcopy(rng.choice([other, *NASTY]))
        elif action == 2 and isinstance(value, dict):
            value[f"{rng.choice(places)}{rng.choice(['', 'x', '.weight', '_proj'])}"] = value.pop(place)
        elif action == 3 and isinstance(inner, int) and not isinstance(inner, bool):
            value[place] = inner + rng.choice([-32, -8, -4, -1, 1, 4, 8, 32, inner])
        else:
            value[place] = copy.deepcopy(rng.choice([rng.choice(NASTY), other]))
        return
