"""Small random models of every family that GGUF files are written for, as folders that transformers reads."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM

from core.files import read_json
from core.formats.gguf.export import Export, export
from core.model.headers import TensorInfo, read_folder
from core.model.tree import ModelTree, build_tree
from core.model.weights import TensorStore

ROOMY: dict[str, Any] = {
    "vocab_size": 640, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "pad_token_id": None, "bos_token_id": 256,
    "eos_token_id": 257, "tie_word_embeddings": False,
}  # fmt: skip
_GEMMA = ROOMY | {"head_dim": 32, "tie_word_embeddings": True}
_GEMMA3 = _GEMMA | {"query_pre_attn_scalar": 32, "sliding_window": 9}
_PHI3 = ROOMY | {"sliding_window": None, "original_max_position_embeddings": 512}


def _rope(kind: str, **settings: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **settings}}


FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", ROOMY | {"rope_parameters": {"rope_type": "default", "rope_theta": 50000.0}}),
    "llama-biased": ("LlamaConfig", ROOMY | {"attention_bias": True, "mlp_bias": True, "head_dim": 24}),
    "llama3": ("LlamaConfig", ROOMY | {"tie_word_embeddings": True} | _rope(
        "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)),
    "llama-linear": ("LlamaConfig", ROOMY | _rope("linear", factor=4.0)),
    "llama-yarn": ("LlamaConfig", ROOMY | _rope("yarn", factor=4.0, original_max_position_embeddings=128)),
    "mistral": ("MistralConfig", ROOMY | {"sliding_window": None, "head_dim": 32}),
    "qwen2": ("Qwen2Config", ROOMY | {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3Config", ROOMY | {"head_dim": 32}),
    "gemma": ("GemmaConfig", _GEMMA),
    "gemma2": ("Gemma2Config", _GEMMA3 | {"attn_logit_softcapping": 20.0, "final_logit_softcapping": 10.0}),
    "gemma2-uncapped": ("Gemma2Config", _GEMMA3 | {"attn_logit_softcapping": None, "final_logit_softcapping": None}),
    "gemma3": ("Gemma3TextConfig", _GEMMA3 | {"num_hidden_layers": 7}),
    "gemma3-pattern": ("Gemma3TextConfig", _GEMMA3 | {
        "num_hidden_layers": 4, "tie_word_embeddings": False, "final_logit_softcapping": 10.0,
        "layer_types": [f"{kind}_attention" for kind in ("full", "sliding", "sliding", "full")]}),
    "phi3": ("Phi3Config", _PHI3),
    "phi3-part": ("Phi3Config", _PHI3 | _rope("default", partial_rotary_factor=0.75)),
    "phi3-long": ("Phi3Config", _PHI3 | {"original_max_position_embeddings": 256} | _rope(
        "longrope", original_max_position_embeddings=256, short_factor=[1.0 + 0.1 * i for i in range(8)],
        long_factor=[2.0 + i for i in range(8)])),
}  # fmt: skip


def config_of(family: str, **changes: Any) -> Any:
    """Return the transformers config of a family."""
    name, settings = FAMILIES[family]
    return getattr(transformers, name)(**(settings | changes))


def build(family: str, **changes: Any) -> Any:
    """Return a random model whose weights are exact in bfloat16."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(
        config_of(family, **changes), dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_((parameter + 0.1 * torch.randn_like(parameter)).bfloat16().float())
    return model


def save(model: Any, folder: Path, save_tokenizer: Callable[[Path], None] | None = None) -> Path:
    """Write the model to a folder in bfloat16, with a byte-level tokenizer by default."""
    # A copy: the rotary tables lose their precision with the weights.
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder)
    (save_tokenizer or save_byte_level)(folder)
    return folder


def tree_of(family: str, **changes: Any) -> ModelTree:
    """Return the tree of such a model, from its config and shapes."""
    config = config_of(family, **changes)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    tensors = {}
    for name, value in model.state_dict().items():
        if not (name == "lm_head.weight" and config.tie_word_embeddings):
            tensors[name] = TensorInfo(name, "BF16", tuple(value.shape), "model.safetensors", 0, 2 * value.numel())
    return build_tree(json.loads(config.to_json_string(use_diff=False)), tensors)


def write(folder: Path, path: Path, kind: str = "", name: str = "", **options: Any) -> Export:
    """Write a model folder as a GGUF file, with all matrices in one floating-point type (default: unchanged)."""
    tree = build_tree(read_json(folder / "config.json"), read_folder(folder))
    matrices = [*(linear.name for linear in tree.nameable), tree.embedding]
    contents = export(tree, folder, name or folder.name, dict.fromkeys(matrices, kind) if kind else {}, **options)
    store = TensorStore(folder, tree.tensors)
    with contents.writer(path) as writer:
        contents.write_computed(writer)
        for placed in reversed(contents.tensor_map.mapped):
            contents.write_plain(writer, placed, store, lambda: False)
    return contents


def save_byte_level(folder: Path) -> None:
    """Return a tokenizer like that of GPT-2: 256 bytes, two special tokens, some merged words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    words = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    words |= {"<|start|>": 256, "<|end|>": 257}
    merges = []
    for left, right in (("t", "h"), ("th", "e"), ("i", "n"), ("r", "e"), ("Ġ", "the"), ("in", "g"), ("1", "2")):
        words[left + right] = len(words)
        merges.append((left, right))
    backend = Tokenizer(models.BPE(vocab=words, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|start|>", "<|end|>"])
    backend.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|start|>",
        "eos_token": "<|end|>",
        "chat_template": "{% for m in messages %}<|start|>{{ m['content'] }}<|end|>{% endfor %}",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


WORDS = ("▁the", "▁then", "▁there", "ing", "▁in", "▁12", "12", "er", "ere", "▁▁", "▁▁▁", "▁▁▁▁", "é", "を", "hen", "ng")
"""Words of a small SentencePiece vocabulary beyond letters."""


def _pieces(special: list[str], runs: list[str]) -> tuple[dict[str, int], list[list[str]]]:
    """Return a vocabulary of `WORDS` and runs of a letter, and all merges of two tokens, by priority."""
    letters = [chr(code) for code in range(33, 127)] + ["▁", "\n"]
    pieces = sorted({word[:end] for word in WORDS for end in range(1, len(word) + 1)} - set(letters), key=len)
    single = [f"<0x{byte:02X}>" for byte in range(256)]
    texts = [*special, *single, *runs, *pieces, *letters, "<|user|>", "<|endoftext|>"]
    vocab = {text: number for number, text in enumerate(texts)}
    ordered = sorted(runs, key=len, reverse=True) + sorted(pieces)
    pairs = [(text[:at], text[at:]) for text in ordered for at in range(1, len(text))]
    return vocab, [[left, right] for left, right in pairs if left in vocab and right in vocab]


def sentencepiece_json(
    *, prefix: bool = True, gemma: bool = False, strip: bool = False, first: str = "<s>"
) -> dict[str, Any]:
    """Return the tokenizer.json of a small SentencePiece tokenizer.

    Args:
        prefix: a blank is put before the text (Llama 2's way).
        gemma: runs of spaces and line ends are added tokens, as in Gemma.
        strip: special tokens strip the whitespace after them, as in Phi-3.
        first: text of the token that begins texts.
    """
    special = ["<unk>", first, "</s>"]
    runs = ["\n" * count for count in range(2, 5)] if gemma else []
    vocab, merges = _pieces(special, runs)
    added = [
        *special,
        "<|user|>",
        "<|endoftext|>",
        *runs,
        *(["▁▁", "▁▁▁", "▁▁▁▁"] if gemma else []),
        *(["\n"] if gemma else []),
    ]
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    steps = [{"type": "Prepend", "prepend": "▁"}] if prefix else []
    pieces_around = [{"SpecialToken": {"id": first, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    return {
        "version": "1.0", "truncation": None, "padding": None, "pre_tokenizer": None, "decoder": None,
        "added_tokens": [
            {
                "id": vocab[text], "content": text, "single_word": False, "lstrip": False, "normalized": False,
                "rstrip": strip and text not in ("<unk>", "<s>", "<|endoftext|>"), "special": text.startswith("<"),
            }
            for text in sorted(added, key=lambda text: vocab[text])
        ],
        "normalizer": {"type": "Sequence", "normalizers": [*steps, replace]},
        "post_processor": {
            "type": "TemplateProcessing", "single": pieces_around, "pair": pieces_around,
            "special_tokens": {first: {"id": first, "ids": [vocab[first]], "tokens": [first]}},
        },
        "model": {
            "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
            "vocab": vocab, "merges": merges,
        },
    }  # fmt: skip


def save_json(folder: Path, tokenizer: dict[str, Any], **settings: Any) -> Path:
    """Write the folder of a tokenizer: tokenizer.json and settings."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder
