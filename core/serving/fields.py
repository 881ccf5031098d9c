"""The fields that a request may have: what is done, what changes no answer, and values that ask for nothing.

Everything else is refused with its name: a field that is passed over in silence gives an answer that was not asked for.
Other servers of open models (vLLM, llama.cpp, SGLang) know many more, and their clients send them. Knows names and
values only.
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
"""Fields of a conversation that are done."""
TEXT: Final = _BOTH | {"prompt", "echo"}
"""Fields of a text completion that are done."""
HARMLESS: Final = frozenset({
    "user", "metadata", "store", "service_tier", "parallel_tool_calls", "safety_identifier", "prompt_cache_key",
    "prompt_cache_retention", "request_id", "priority", "cache_prompt", "cache_salt", "id_slot", "keep_alive",
})  # fmt: skip
"""Fields that have no bearing on an answer here, whatever they hold: for accounts, caches and the order of requests."""

_FALSE: Final = (False,)
_ASK_NOTHING: Final[Mapping[str, tuple[Any, ...]]] = {
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
"""Values of fields that are not done which clients send by default and which ask for nothing."""
_WHY: Final[Mapping[str, str]] = {
    "n": "Only one answer is made: n has to be 1.",
    "best_of": "Only one answer is made: best_of has to be 1.",
    "logprobs": "Log probabilities are not given by this server.",
    "top_logprobs": "Log probabilities are not given by this server.",
    "tools": "Tools are not called by this server.",
    "tool_choice": "Tools are not called by this server.",
    "functions": "Functions are not called by this server.",
    "logit_bias": "Biases of tokens are not taken by this server.",
    "audio": "This server answers in text only.",
    "suffix": "Text is only continued, not filled in, by this server.",
    "response_format": "Answers are plain text on this server.",
    "grammar": "Answers cannot be bound to a grammar on this server.",
    "chat_template": "The model's own chat template is used.",
    "n_predict": "n_predict is not a field of this interface; use max_tokens.",
    "repeat_penalty": "repeat_penalty is not a field of this interface; use repetition_penalty.",
    "reasoning_effort": "Use chat_template_kwargs for what the model's chat template knows.",
    "enable_thinking": "Use chat_template_kwargs: {\"enable_thinking\": false}.",
}  # fmt: skip


def check_fields(body: Mapping[str, Any], done: frozenset[str]) -> None:
    """Check that a request has no field that would be passed over.

    Args:
        done: the fields that are read.

    Raises:
        RequestError: 400, with the field's name.
    """
    for name, value in body.items():
        if value is None or name in done or name in HARMLESS:
            continue
        if any(_same(value, nothing) for nothing in _ASK_NOTHING.get(name, ())):
            continue
        told = name[:80] or repr(name)
        why = _WHY.get(name, f"{told} is not done by this server.")
        raise RequestError(400, why, code="unsupported_parameter", param=told)


def _same(value: Any, other: Any) -> bool:
    """Whether two JSON values are the same; 1 and 1.0 are, 1 and true are not."""
    return isinstance(value, bool) == isinstance(other, bool) and bool(value == other)
