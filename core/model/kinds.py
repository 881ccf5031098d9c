"""Model types that are not language models of their own, although transformers can load them as such.

transformers builds causal language models from encoders with a causal mask, from the decoder of an encoder-decoder
without its encoder, and from draft models. Their config does not show that, so the model types are listed. Does not
import transformers; `tests/coverage` compares the lists with its mappings.
"""

from __future__ import annotations

from typing import Final

ENCODERS: Final = frozenset({
    "bert", "big_bird", "camembert", "data2vec-text", "electra", "ernie", "megatron-bert", "rembert", "roberta",
    "roberta-prelayernorm", "roc_bert", "roformer", "xlm", "xlm-roberta", "xlm-roberta-xl", "xlnet", "xmod",
})  # fmt: skip
HALVES: Final = frozenset({
    "bart", "bert-generation", "bigbird_pegasus", "blenderbot", "blenderbot-small", "marian", "mbart", "musicgen",
    "musicgen_melody", "mvp", "pegasus", "plbart", "prophetnet", "trocr", "whisper",
})  # fmt: skip
DRAFTS: Final = frozenset({"gemma4_assistant", "gemma4_unified_assistant"})


def refusal(model_type: object) -> str:
    """Return the reason why models of this type are not quantized, in one sentence; "" if their type is no reason."""
    if not isinstance(model_type, str):
        return ""
    if model_type in ENCODERS:
        return f"The model is an encoder ({model_type}); this version quantizes models that generate text."
    if model_type in HALVES:
        return (
            f"The model is half of an encoder-decoder, its decoder ({model_type}); this version quantizes decoder-only "
            "models."
        )
    if model_type in DRAFTS:
        return "The model is a draft model, which reads the hidden states of a larger model; quantize the larger model."
    return ""
