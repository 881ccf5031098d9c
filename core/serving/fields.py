"""The fields of a request: supported fields, fields that are ignored, and neutral values of unsupported fields.

Everything else is refused with the field's name, because silently ignoring a field would give a different answer than
requested. Other servers of open models (vLLM, llama.cpp, SGLang) support more fields, which their clients send.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from core.serving.request_errors import RequestError

_BOTH: Final = frozenset({
    "model", "stream", "stream_options", "max_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty",
    "presence_penalty", "frequency_penalty", "seed", "stop", "stop_token_ids", "min_tokens", "ignore_eos",
})  # fmt: skip
CHAT: Final = _BOTH | {
    "messages", "max_completion_tokens", "chat_template_kwargs", "continue_final_message", "add_generation_prompt",
}  # fmt: skip
"""Supported fields of a chat completion."""
TEXT: Final = _BOTH | {"prompt", "echo"}
"""Supported fields of a text completion."""
HARMLESS: Final = frozenset({
    "user", "metadata", "store", "service_tier", "parallel_tool_calls", "safety_identifier", "prompt_cache_key",
    "prompt_cache_retention", "request_id", "priority", "cache_prompt", "cache_salt", "id_slot", "keep_alive",
})  # fmt: skip
"""Ignored fields, which do not affect an answer: for accounts, caches and the order of requests."""

_FALSE: Final = (False,)
_NEUTRAL: Final[Mapping[str, tuple[Any, ...]]] = {
    "n": (1,), "best_of": (1,), "logprobs": _FALSE, "top_logprobs": (0,), "prompt_logprobs": (0, False),
    "n_probs": (0,), "return_progress": _FALSE, "logits_processors": ([],),
    "tools": ([],), "tool_choice": ("none", "auto"), "functions": ([],), "function_call": ("none", "auto"),
    "logit_bias": ({}, []), "response_format": ({"type": "text"},), "modalities": (["text"],), "suffix": ("",),
    "echo": _FALSE, "documents": ([],), "bad_words": ([],), "allowed_token_ids": ([],), "use_beam_search": _FALSE,
    "length_penalty": (1,), "repeat_penalty": (1,), "skip_special_tokens": (True,), "verbosity": ("medium",),
    "spaces_between_special_tokens": (True,), "include_stop_str_in_output": _FALSE, "return_token_ids": _FALSE,
    "return_tokens_as_token_ids": _FALSE, "typical_p": (1,), "tfs_z": (1,), "top_a": (0,), "mirostat": (0,),
    "dry_multiplier": (0,), "xtc_probability": (0,), "dynatemp_range": (0,), "include_reasoning": (True,),
    "separate_reasoning": (True,), "guided_json": ({},), "grammar": ("",), "json_schema": ({},),
    "timings_per_token": _FALSE,
}  # fmt: skip
"""Neutral values of unsupported fields, which clients send by default."""
_REASONS: Final[Mapping[str, str]] = {
    "n": "This server generates only one answer: n must be 1.",
    "best_of": "This server generates only one answer: best_of must be 1.",
    "logprobs": "This server does not support log probabilities.",
    "top_logprobs": "This server does not support log probabilities.",
    "tools": "This server does not support tools.",
    "tool_choice": "This server does not support tools.",
    "functions": "This server does not support functions.",
    "logit_bias": "This server does not support logit_bias.",
    "audio": "This server supports text only.",
    "suffix": "This server does not support infilling.",
    "response_format": "This server supports plain text answers only.",
    "grammar": "This server does not support grammars.",
    "chat_template": "This server always uses the model's chat template.",
    "n_predict": "n_predict is not supported; use max_tokens.",
    "repeat_penalty": "repeat_penalty is not supported; use repetition_penalty.",
    "reasoning_effort": "Use chat_template_kwargs to set variables of the model's chat template.",
    "enable_thinking": "Use chat_template_kwargs: {\"enable_thinking\": false}.",
}  # fmt: skip


def check_fields(body: Mapping[str, Any], done: frozenset[str]) -> None:
    """Check that a request has no unsupported field.

    Args:
        body: JSON of the request.
        done: names of the supported fields.

    Raises:
        RequestError: 400, with the field's name.
    """
    for name, value in body.items():
        if value is None or name in done or name in HARMLESS:
            continue
        if any(_same(value, nothing) for nothing in _NEUTRAL.get(name, ())):
            continue
        shown = name[:80] or repr(name)
        reason = _REASONS.get(name, f"This server does not support {shown}.")
        raise RequestError(400, reason, code="unsupported_parameter", param=shown)


def _same(value: Any, other: Any) -> bool:
    """Return whether two JSON values are equal; 1 equals 1.0 but not true."""
    return isinstance(value, bool) == isinstance(other, bool) and bool(value == other)
