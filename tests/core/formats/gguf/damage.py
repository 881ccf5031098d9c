"""Deterministic damage to GGUF files for the fuzz tests of the readers."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import gguf

_CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9

NUMBERS = [0, 1, 2, 3, 5, 7, 31, 32, 33, 64, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1, -1, -(2**31)]
FLOATS = [0.0, -0.0, 1e-45, 1e38, -1.0, float("inf"), float("-inf"), float("nan")]
TEXTS = [
    b"", b"x", b"llama", b"gpt2", b"gpt-2", b"mmproj", b"yarn", b"linear", b"longrope", b"smollm", b"qwen2", b"default",
    b"gemma3", b"gemma2", b"phi3", b"qwen3", b"1 2 3", b"t h", b"the the", b"\xff\xfe", b"\x00" * 9, b"a" * 3000,
    b"../../x", b"{% for a in range(10**9) %}{% endfor %}", "ñ\n\x1b[2J".encode(),
]  # fmt: skip


@dataclass(frozen=True)
class Key:
    """An entry of the metadata; `kind` and `element` are written even if they are wrong."""

    name: bytes
    kind: int
    value: Any
    element: int = 0

    def packed(self) -> bytes:
        return _text(self.name) + struct.pack("<I", self.kind) + self._value()

    def _value(self) -> bytes:
        if self.kind == _STRING:
            return _text(self.value if isinstance(self.value, bytes) else b"x")
        if self.kind in _CODES:
            return _number(self.kind, self.value)
        if self.kind != _ARRAY:
            return b""
        values = self.value if isinstance(self.value, list) else [self.value]
        start = struct.pack("<IQ", self.element, len(values))
        if self.element == _STRING:
            return start + b"".join(_text(item if isinstance(item, bytes) else b"x") for item in values)
        return start + b"".join(_number(self.element, item) for item in values if self.element in _CODES)


@dataclass(frozen=True)
class Table:
    """An entry of the tensor table."""

    name: bytes
    dims: tuple[int, ...]
    kind: int
    offset: int

    def packed(self) -> bytes:
        dims = [value % 2**64 for value in self.dims]
        return _text(self.name) + struct.pack(
            f"<I{len(dims)}QIQ", len(dims), *dims, self.kind % 2**32, self.offset % 2**64
        )


@dataclass(frozen=True)
class Parts:
    """All parts of a file."""

    keys: tuple[Key, ...]
    tensors: tuple[Table, ...]
    data: bytes

    def joined(self) -> bytes:
        head = b"GGUF" + struct.pack("<IQQ", 3, len(self.tensors), len(self.keys))
        head += b"".join([*(key.packed() for key in self.keys), *(tensor.packed() for tensor in self.tensors)])
        return head + bytes(-len(head) % 32) + self.data


def take_apart(path: Any) -> Parts:
    """Return the parts of a valid file."""
    reader = gguf.GGUFReader(path)
    keys = []
    for name, field in reader.fields.items():
        if name.startswith("GGUF."):
            continue
        kind, element = int(field.types[0]), int(field.types[-1])
        value = field.contents()
        if kind == _ARRAY and element == _STRING:
            value = [bytes(field.parts[index]) for index in field.data]
        elif kind == _STRING:
            value = bytes(field.parts[-1])
        keys.append(Key(name.encode(), kind, value, element if kind == _ARRAY else 0))
    start = reader.data_offset
    tensors = tuple(
        Table(item.name.encode(), tuple(map(int, item.shape)), int(item.tensor_type), item.data_offset - start)
        for item in reader.tensors
    )
    return Parts(tuple(keys), tensors, bytes(reader.data[start:]))


def structured(parts: Parts, number: int) -> bytes:
    """Return the file with one or several changed entries in an otherwise valid header."""
    rng = random.Random(number)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        parts = rng.choice(_CHANGES)(rng, parts)
    return parts.joined()


def structured_keys(keys: tuple[Key, ...], number: int) -> tuple[Key, ...]:
    """Return metadata with one or several changed entries."""
    rng = random.Random(number)
    parts = Parts(keys, (), b"")
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        parts = rng.choice([_key_value, _key_value, _key_value, _key_kind, _key_list, _key_new])(rng, parts)
    return parts.keys


def raw(data: bytes, number: int, header: int) -> bytes:
    """Return the file with bytes changed, removed, inserted or moved, mostly in the first `header` bytes."""
    rng = random.Random(number)
    end = header if rng.random() < 0.9 else len(data)
    kind, place = rng.randrange(6), rng.randrange(end)
    if kind <= 2:
        changed = bytearray(data)
        for _ in range(rng.choice([1, 1, 2, 8])):
            place = rng.randrange(end)
            changed[place] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, changed[place] ^ 1 << rng.randrange(8)])
        return bytes(changed)
    if kind == 3:
        return data[: rng.randrange(len(data))]
    if kind == 4:
        return data[:place] + rng.randbytes(rng.choice([1, 4, 8, 32])) + data[place:]
    length = struct.pack("<Q", rng.choice(NUMBERS) % 2**64)
    return data[:place] + length + data[place + 8 :]


def _key_value(rng: random.Random, parts: Parts) -> Parts:
    index = rng.randrange(len(parts.keys))
    key = parts.keys[index]
    if key.kind == _ARRAY and isinstance(key.value, list) and key.value and rng.random() < 0.8:
        value = _list(rng, key.value, key.element)
    else:
        value = _other(rng, key.kind, key.value)
    return _with_key(parts, index, replace(key, value=value))


def _key_kind(rng: random.Random, parts: Parts) -> Parts:
    index = rng.randrange(len(parts.keys))
    kind = rng.choice([*_CODES, _STRING, _ARRAY, 13, 255])
    element = rng.choice([*_CODES, _STRING, _ARRAY])
    value = (
        [_other(rng, element, 1) for _ in range(rng.choice([0, 1, 3, 300]))] if kind == _ARRAY else _other(rng, kind, 1)
    )
    return _with_key(parts, index, replace(parts.keys[index], kind=kind, value=value, element=element))


def _key_list(rng: random.Random, parts: Parts) -> Parts:
    keys = list(parts.keys)
    index = rng.randrange(len(keys))
    action = rng.randrange(3)
    if action == 0:
        del keys[index]
    elif action == 1:
        keys.insert(rng.randrange(len(keys)), keys[index])
    else:
        name = rng.choice(keys).name if rng.random() < 0.5 else rng.choice(_NAMES)
        keys[index] = replace(keys[index], name=name)
    return replace(parts, keys=tuple(keys))


def _key_new(rng: random.Random, parts: Parts) -> Parts:
    kind = rng.choice([4, 4, 6, 7, 8, 8])
    new = Key(rng.choice(_NAMES), kind, _other(rng, kind, 1))
    kept = tuple(key for key in parts.keys if key.name != new.name)
    return replace(parts, keys=(*kept, new))


def _tensor(rng: random.Random, parts: Parts) -> Parts:
    tensors = list(parts.tensors)
    index = rng.randrange(len(tensors))
    item, action = tensors[index], rng.randrange(6)
    if action == 0:
        del tensors[index]
    elif action == 1:
        other = rng.choice(tensors)
        tensors[index] = replace(item, name=rng.choice([other.name, item.name + b"x", b"", b"rope_freqs.weight"]))
    elif action == 2:
        dims = list(item.dims)
        place = rng.randrange(len(dims))
        dims[place] = rng.choice([*NUMBERS, dims[place] * 2, dims[place] // 2, dims[place] + 1])
        tensors[index] = replace(item, dims=tuple(dims))
    elif action == 3:
        tensors[index] = replace(item, dims=rng.choice([item.dims[::-1], (*item.dims, 1), item.dims[:1], (), (1,) * 9]))
    elif action == 4:
        tensors[index] = replace(item, kind=rng.choice([0, 1, 2, 3, 6, 7, 8, 10, 14, 20, 24, 30, 39, 99, 2**31]))
    else:
        tensors[index] = replace(item, offset=rng.choice([*NUMBERS, rng.choice(tensors).offset, item.offset + 32]))
    return replace(parts, tensors=tuple(tensors))


def _data(rng: random.Random, parts: Parts) -> Parts:
    changed = bytearray(parts.data)
    for _ in range(rng.choice([1, 8, 200])):
        changed[rng.randrange(len(changed))] = rng.choice([0, 0x7C, 0x7F, 0x80, 0xFC, 0xFF, rng.randrange(256)])
    return replace(parts, data=bytes(changed))


_CHANGES: list[Callable[[random.Random, Parts], Parts]] = [
    *[_key_value] * 8, *[_tensor] * 4, _key_kind, _key_kind, _key_list, _key_list, _key_new, _key_new, _data,
]  # fmt: skip
_NAMES = [
    name.encode()
    for name in (
        "llama.rope.scaling.type", "llama.rope.scaling.factor", "llama.rope.scaling.original_context_length",
        "llama.expert_count", "llama.attention.key_length", "llama.attention.sliding_window", "split.count",
        "general.alignment", "general.type", "tokenizer.ggml.pre", "tokenizer.ggml.eot_token_id",
        "tokenizer.ggml.add_bos_token", "tokenizer.ggml.unknown_token_id", "tokenizer.chat_template", "",
        "tokenizer.ggml.add_space_prefix", "tokenizer.ggml.scores", "llama.rope.freq_base",
    )
]  # fmt: skip


def _with_key(parts: Parts, index: int, key: Key) -> Parts:
    return replace(parts, keys=(*parts.keys[:index], key, *parts.keys[index + 1 :]))


def _list(rng: random.Random, values: list[Any], element: int) -> list[Any]:
    changed = list(values)
    for _ in range(rng.choice([1, 1, 5])):
        action, place = rng.randrange(4), rng.randrange(len(changed)) if changed else 0
        if action == 0 or not changed:
            changed.append(_other(rng, element, 1))
        elif action == 1:
            del changed[place]
        elif action == 2:
            changed[place] = rng.choice(changed)
        else:
            changed[place] = _other(rng, element, changed[place])
    return changed if rng.random() < 0.95 else changed[: rng.choice([0, 1, 2])]


def _other(rng: random.Random, kind: int, value: Any) -> Any:
    """Return another value of a type."""
    if kind == _STRING:
        known = value if isinstance(value, bytes) and value else b"x"
        place = rng.randrange(len(known))
        return rng.choice([*TEXTS, known + known, known[:place], known[:place] + rng.randbytes(2) + known[place:]])
    if kind in (6, 12):
        return rng.choice(FLOATS)
    near = [value - 1, value + 1, value * 2, value // 2] if type(value) is int else []
    return rng.choice([*NUMBERS, *near, *near, *near])


def _text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def _number(kind: int, value: Any) -> bytes:
    code = _CODES[kind]
    if code == "?":
        return bytes([bool(value)])
    if code in "fd":
        return struct.pack(f"<{code}", value if isinstance(value, float) else float(int(value) % 1000))
    width = struct.calcsize(code)
    number = int(value) if isinstance(value, int) else 7
    return (number % 2 ** (8 * width)).to_bytes(width, "little")
