"""Tests of parsing requests, and of the field named in an error."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.serving.completion_requests import chat_request, check_variables, text_request
from core.serving.request_errors import RequestError

GOOD: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = (
    "messages", "model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "temperature", "top_p",
    "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "seed", "stop", "n", "logprobs",
    "tools", "response_format", "echo", "prompt", "best_of", "min_tokens", "stop_token_ids", "ignore_eos",
    "chat_template_kwargs", "continue_final_message", "add_generation_prompt",
)  # fmt: skip


def refusal(**fields: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        chat_request({**GOOD, **fields}, 100)
    return caught.value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("messages", None), ("messages", []), ("messages", "hi"), ("model", 3), ("stream", 1), ("stream", "yes"),
        ("stream_options", 1), ("stream_options", {"include_usage": True}), ("max_tokens", 0), ("max_tokens", 1.5),
        ("max_tokens", True), ("max_completion_tokens", -1), ("temperature", 2.1), ("temperature", "0"),
        ("temperature", float("nan")), ("top_p", -0.1), ("top_k", -2), ("min_p", 2), ("presence_penalty", 3),
        ("frequency_penalty", -3), ("repetition_penalty", 0), ("seed", 1.0), ("seed", 2**70), ("stop", 3),
        ("stop", [""]), ("stop", ["x"] * 99), ("n", 2), ("n", 0), ("logprobs", True), ("top_logprobs", 2),
        ("tools", [{}]), ("logit_bias", {"1": 2}), ("response_format", {"type": "json_object"}),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(field: str, value: Any) -> None:
    found = refusal(**{field: value})
    assert (found.status, found.param) == (400, field)


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("hi", "messages[1]"),
        ({"content": "hi"}, "messages[1].role"),
        ({"role": ["user"], "content": "hi"}, "messages[1].role"),
        ({"role": "tool", "content": "hi"}, "messages[1].role"),
        ({"role": "user"}, "messages[1].content"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "messages[1].content[0].image_url"),
    ],
)
def test_a_wrong_message_is_named(message: Any, param: str) -> None:
    assert refusal(messages=[*GOOD["messages"], message]).param == param


def test_parts_of_text_are_one_text() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    found = chat_request({"messages": [{"role": "user", "content": parts}]}, 100)
    assert found.messages == ({"role": "user", "content": "ab"},)


def test_a_developer_is_the_system() -> None:
    found = chat_request({"messages": [{"role": "developer", "content": "a"}, *GOOD["messages"]]}, 100)
    assert found.messages is not None
    assert found.messages[0]["role"] == "system"


def test_the_default_length_of_an_answer_is_the_context() -> None:
    assert chat_request(GOOD, 77).sampling.max_tokens == 77


def test_max_completion_tokens_has_priority() -> None:
    assert chat_request({**GOOD, "max_tokens": 5, "max_completion_tokens": 6}, 100).sampling.max_tokens == 6


@pytest.mark.parametrize("field", ["user", "metadata", "store", "parallel_tool_calls", "service_tier"])
def test_fields_that_do_not_affect_the_answer_are_ignored(field: str) -> None:
    assert chat_request({**GOOD, field: "x"}, 100) == chat_request(GOOD, 100)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("chat_template", "x"), ("guided_json", {"type": "object"}), ("guided_regex", "a"), ("grammar", "root ::= x"),
        ("json_schema", {"type": "object"}), ("structured_outputs", {"regex": "a"}), ("bad_words", ["a"]),
        ("n_predict", 1),
        ("tool_choice", "required"), ("tool_choice", {"type": "function"}), ("unheard_of", 1), ("unheard_of", False),
        ("skip_special_tokens", False), ("use_beam_search", True), ("repeat_penalty", 1.3), ("enable_thinking", False),
        ("prompt", "a"), ("logprobs", 0), ("n", True), ("x" * 200, 1),
    ],
)  # fmt: skip
def test_unsupported_fields_are_refused_by_name(field: str, value: Any) -> None:
    found = refusal(**{field: value})
    assert (found.status, found.code, found.param) == (400, "unsupported_parameter", field[:80])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", []), ("tool_choice", "none"), ("tool_choice", "auto"), ("logprobs", False), ("top_logprobs", 0),
        ("logit_bias", {}), ("n", 1), ("n", 1.0), ("response_format", {"type": "text"}), ("repeat_penalty", 1.0),
        ("skip_special_tokens", True), ("use_beam_search", False), ("modalities", ["text"]), ("unheard_of", None),
    ],
)  # fmt: skip
def test_neutral_values_of_unsupported_fields_are_accepted(field: str, value: Any) -> None:
    assert chat_request({**GOOD, field: value}, 100) == chat_request(GOOD, 100)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("min_tokens", -1), ("min_tokens", 101), ("ignore_eos", "yes"), ("stop_token_ids", 3),
        ("stop_token_ids", ["a"]),
        ("stop_token_ids", [-1]), ("stop_token_ids", [True]), ("stop_token_ids", [1] * 17),
        ("chat_template_kwargs", []),
        ("chat_template_kwargs", {"a-b": 1}), ("continue_final_message", True), ("add_generation_prompt", "no"),
    ],
)  # fmt: skip
def test_a_wrong_value_of_the_newer_fields_is_named(field: str, value: Any) -> None:
    found = refusal(**{field: value})
    assert (found.status, found.param) == (400, field)


def test_stop_settings_are_passed_on() -> None:
    sampling = chat_request({**GOOD, "stop_token_ids": [3, 4], "min_tokens": 2, "ignore_eos": True}, 100).sampling
    assert (sampling.stop_token_ids, sampling.min_tokens, sampling.ignore_eos) == ((3, 4), 2, True)


@pytest.mark.parametrize("name", ["tokenize", "chat_template", "messages", "return_tensors", "continue_final_message"])
def test_reserved_variables_of_a_template_are_refused(name: str) -> None:
    assert refusal(chat_template_kwargs={name: True}).param == f"chat_template_kwargs.{name}"


def test_a_template_gets_its_variables() -> None:
    found = chat_request({**GOOD, "chat_template_kwargs": {"a": 1}, "add_generation_prompt": False}, 100)
    assert found.variables == {"a": 1, "add_generation_prompt": False}


def test_the_assistants_message_is_continued() -> None:
    talk = [*GOOD["messages"], {"role": "assistant", "content": "I"}]
    found = chat_request({"messages": talk, "continue_final_message": True, "add_generation_prompt": False}, 100)
    assert found.continue_last
    assert refusal(messages=talk, continue_final_message=True, add_generation_prompt=True).status == 400


@pytest.mark.parametrize(
    ("variables", "template", "thinks", "param"),
    [
        ({"enable_thinking": False}, "{% if enable_thinking %}", True, ""),
        ({"enable_thinking": False}, "plain", False, ""),
        ({"enable_thinking": True}, "plain", False, "chat_template_kwargs.enable_thinking"),
        ({"enable_thinking": False}, "<think>", True, "chat_template_kwargs.enable_thinking"),
        ({"thinking_budget": 3}, "{{ thinking_budgets }}", True, "chat_template_kwargs.thinking_budget"),
        ({"add_generation_prompt": False}, "plain", False, "add_generation_prompt"),
    ],
)
def test_a_variable_that_the_template_does_not_use_is_refused(
    variables: dict[str, Any], template: str, thinks: bool, param: str
) -> None:
    question = replace(chat_request(GOOD, 100), variables=variables)
    found = ""
    try:
        check_variables(question, template, thinks)
    except RequestError as refused:
        found = refused.param
    assert found == param


@pytest.mark.parametrize(
    ("name", "value"), [("tool_calls", [{}]), ("prefix", True), ("tool_call_id", "x"), ("y" * 100, 1)]
)
def test_an_unsupported_field_of_a_message_is_named(name: str, value: Any) -> None:
    message = {"role": "assistant", "content": "a", name: value}
    assert refusal(messages=[message]).param == f"messages[0].{name[:80]}"


@pytest.mark.parametrize("more", [{"name": "n"}, {"tool_calls": []}, {"refusal": None}, {"reasoning_content": "r"}])
def test_fields_of_earlier_answers_are_accepted_in_a_message(more: dict[str, Any]) -> None:
    found = chat_request({"messages": [{"role": "assistant", "content": "a", **more}]}, 100)
    assert found.messages == ({"role": "assistant", "content": "a"},)


@pytest.mark.parametrize("field", FIELDS[1:])
def test_null_counts_as_missing(field: str) -> None:
    assert chat_request({**GOOD, field: None}, 100) == chat_request(GOOD, 100)


def test_without_a_seed_a_random_one_is_used() -> None:
    assert chat_request(GOOD, 100).sampling.seed is None


@pytest.mark.parametrize("prompt", [None, "", [], ["a", "b"], [1, 2], 3])
def test_a_prompt_is_one_text(prompt: Any) -> None:
    with pytest.raises(RequestError) as caught:
        text_request({"prompt": prompt})
    assert caught.value.param == "prompt"


def test_a_batch_of_one_is_one_text() -> None:
    assert text_request({"prompt": ["a"]}).prompt == "a"


def test_the_default_length_of_a_text_completion_is_16() -> None:
    assert text_request({"prompt": "a"}).sampling.max_tokens == 16


def test_several_answers_are_refused() -> None:
    with pytest.raises(RequestError) as caught:
        text_request({"prompt": "a", "best_of": 3})
    assert caught.value.param == "best_of"


@given(body=st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=4), JSON, max_size=5))
def test_any_request_is_parsed_or_refused(body: dict[str, Any]) -> None:
    found = [refused for read in (_as_chat, _as_text) if (refused := read(body)) is not None]
    assert [refused for refused in found if refused.status != 400 or not refused.param] == []


def _as_chat(body: dict[str, Any]) -> RequestError | None:
    try:
        chat_request({**GOOD, **body}, 100)
    except RequestError as refused:
        return refused
    return None


def _as_text(body: dict[str, Any]) -> RequestError | None:
    try:
        text_request({"prompt": "a", **body})
    except RequestError as refused:
        return refused
    return None
