"""Chat templates rendered in a separate process: equality with transformers, and the limits on templates."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from core.errors import BadInput, Cancelled
from core.model import chat_template
from core.model.chat_template import ChatTemplate, TemplateRefusal

TALK: list[dict[str, Any]] = [
    {"role": "system", "content": 'Be <brief> & "kind".'},
    {"role": "user", "content": "Grüße \U0001f600\n{{ 1 }}"},
    {"role": "assistant", "content": "Hi", "reasoning_content": "well"},
    {"role": "user", "content": "more "},
]
TEMPLATES = [
    (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
        "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    (
        "{{ bos_token }}{% for m in messages %}\n    {% if m.role == 'assistant' %}\n"
        "{% generation %}{{ m.thinking }}{{ m.content + eos_token }}{% endgeneration %}\n{% continue %}{% endif %}"
        "{{ m | tojson }}{{ m | tojson(indent=2) }}{% endfor %}"
    ),
    (
        "{% set ns = namespace(count=0, last='') %}{% for m in messages %}{% set ns.count = ns.count + 1 %}"
        "{% if loop.index > 2 %}{% break %}{% endif %}{% set ns.last = m['content'] %}{% endfor %}"
        "{{ ns.count }}{{ ns.last }}"
    ),
    (
        "{%- macro show(m) -%}[{{ m.role | upper }}]{{ caller() if caller else m.content }}{%- endmacro -%}"
        "{% for m in messages %}{{ show(m) }}{% endfor %}{{ dict(a=1, b=dict.fromkeys('x')) }}"
    ),
    (
        "{{ messages | map(attribute='role') | join(',') }}{{ strftime_now('%Y') | length }}{{ tools is none }}"
        "{{ 'yes' if enable_thinking is defined and enable_thinking else 'no' }}{{ missing }}{{ range(3) | list }}"
    ),
    (
        "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}"
        "{% else %}{% set rest = messages %}{% endif %}"
        "{% for m in rest %}{{ m['content'].split('</think>')[-1].lstrip('\\n') }}"
        "{% if not loop.last %}|{% endif %}{% endfor %}"
    ),
]


class Tokenizer:
    """The attributes of a transformers tokenizer that `ChatTemplate` reads."""

    def __init__(self, template: Any) -> None:
        self.chat_template = template
        self.special_tokens_map = {"bos_token": "<s>", "eos_token": "</s>"}


def render(template: Any, messages: list[dict[str, Any]] = TALK, **options: Any) -> str:
    return ChatTemplate(Tokenizer(template)).render(messages, **options)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the time limit for templates that do not finish."""
    monkeypatch.setattr(chat_template, "WALL_SECONDS", 0.5)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("variables", [{}, {"enable_thinking": True}])
def test_the_text_equals_the_rendering_of_transformers(template: str, variables: dict[str, Any]) -> None:
    known = {"bos_token": "<s>", "eos_token": "</s>", **variables}
    expected = render_jinja_template([TALK], chat_template=template, add_generation_prompt=True, **known)
    assert render(template, variables=variables) == expected[0][0]


@pytest.mark.parametrize("content", ["Hi th", "Hi ", " Hi\n"])
@pytest.mark.parametrize("template", [TEMPLATES[0], TEMPLATES[0].replace(" | trim", "")])
def test_a_continued_message_equals_the_rendering_of_transformers(template: str, content: str) -> None:
    messages = [*TALK, {"role": "assistant", "content": content}]
    expected = render_jinja_template([messages], chat_template=template, continue_final_message=True)
    assert render(template, messages, continue_last=True) == expected[0][0]


def test_a_template_that_omits_the_last_message_cannot_continue_it() -> None:
    with pytest.raises(TemplateRefusal, match="omits the last message"):
        render("{{ messages[0].content }}", continue_last=True)


@pytest.mark.parametrize(
    ("template", "text"),
    [(None, ""), ("x", "x"), ({"default": "d", "tool_use": "t"}, "d"), ({"rag": "r"}, ""), (3, "")],
)
def test_the_default_of_several_templates_is_used(template: Any, text: str) -> None:
    assert ChatTemplate(Tokenizer(template)).text == text


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('Roles must alternate.') }}", "rejects this conversation: Roles must alternate."),
        ("{{ 1 / 0 }}", "fails on this conversation: ZeroDivisionError: division by zero."),
        ("{{ 10.0 ** 400 }}", "fails on this conversation: OverflowError"),
        ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "infinite recursion"),
        ("{{ nothing() }}", "'nothing' is undefined"),
        ("{{ lipsum.__globals__['os'].getcwd() }}", "is unsafe"),
        ("{% set n = namespace(__class__=1) %}", "cannot hold '__class__'"),
        ("{{ messages.append(1) }}", "is unsafe|is not safely"),
        ("{% for m in messages %}{{ m.content.nothing.more }}{% endfor %}", "has no attribute"),
    ],
)
def test_the_error_message_contains_the_exception_of_the_template(template: str, message: str) -> None:
    with pytest.raises(TemplateRefusal, match=message) as caught:
        render(template)
    assert "\n" not in caught.value.message


def test_a_syntax_error_in_a_template_is_reported_with_its_line() -> None:
    with pytest.raises(BadInput, match=r"has a syntax error: .* \(line 2\)") as caught:
        render("a\n{% if %}")
    assert not isinstance(caught.value, TemplateRefusal)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("work", ["", "{% set n = namespace(a=[]) %}{% set n.a = n.a + [1] %}"])
def test_a_template_that_does_not_finish_is_stopped(work: str) -> None:
    loops = "{% for i in range(99999) %}" * 3 + work + "{% endfor %}" * 3
    with pytest.raises(BadInput, match="did not finish in time") as caught:
        render(loops)
    assert not isinstance(caught.value, TemplateRefusal)
    assert render("fine") == "fine"


@pytest.mark.parametrize(
    ("template", "message"), [("{{ 'a' * 3000000000 }}", "MiB of memory"), ("{{ 'a' * 9000000 }}", "it wrote")]
)
def test_a_template_that_exceeds_the_memory_or_length_limit_is_stopped(template: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        render(template)
    assert render("fine") == "fine"


def test_the_length_limit_grows_with_the_conversation() -> None:
    assert len(render("{{ messages[0].content }}", [{"role": "user", "content": "x" * 3_000_000}])) == 3_000_000


def test_a_lone_surrogate_is_kept() -> None:
    assert render("{{ messages[0].content }}", [{"role": "user", "content": "\ud83d"}]) == "\ud83d"


def test_variables_that_are_not_json_are_rejected() -> None:
    with pytest.raises(BadInput, match="cannot be passed"):
        render("x", variables={"a": object()})


def test_should_stop_cancels_a_rendering() -> None:
    answers = iter([False, True])
    with pytest.raises(Cancelled):
        render(
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
            should_stop=lambda: next(answers),
        )
    assert render("fine") == "fine"


def process() -> int:
    render("fine")
    child = chat_template._PROCESS._child
    assert child is not None
    return child.pid


def test_the_process_is_reused() -> None:
    assert process() == process()


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_the_process_ignores_an_interrupt_and_is_restarted_after_a_kill() -> None:
    first = process()
    os.kill(first, signal.SIGINT)
    assert process() == first
    os.kill(first, signal.SIGKILL)
    chat_template._PROCESS._child.wait()  # type: ignore[union-attr]
    assert process() != first


def test_each_thread_gets_the_replies_to_its_own_requests() -> None:
    found: dict[str, list[str]] = {}

    def work(name: str) -> None:
        found[name] = [
            render(f"{name}{{{{ messages[0].content }}}}", [{"role": "user", "content": str(n)}]) for n in range(20)
        ]

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {name: [f"{name}{n}" for n in range(20)] for name in "ab"}


def test_rendering_falls_back_to_this_process_if_none_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Any:
        raise OSError("no more processes")

    monkeypatch.setattr(chat_template, "_PROCESS", chat_template._Process())
    monkeypatch.setattr(chat_template, "_start", none)
    assert render("{{ messages[1].role }}") == "user"
    with pytest.raises(TemplateRefusal, match="division by zero"):
        render("{{ 1 / 0 }}")


PARTS = "{% for p in m['content'] %}{% if p['type'] == 'text' %}{{ p['text'] }}{% endif %}{% endfor %}"


@pytest.mark.parametrize("content", [PARTS, "{{ m['content'][0]['text'] }}", "{{ m.content[0].text | trim }}"])
def test_a_template_that_expects_content_parts_gets_parts(content: str) -> None:
    template = ChatTemplate(Tokenizer(f"{{% for m in messages %}}<{{{{ m['role'] }}}}>{content}{{% endfor %}}"))
    assert template.render(TALK[1:2]) == "<user>Grüße \U0001f600\n{{ 1 }}"
    half = [*TALK[1:2], {"role": "assistant", "content": "Hi"}]
    assert template.render(half, continue_last=True) == "<user>Grüße \U0001f600\n{{ 1 }}<assistant>Hi"


def test_a_template_that_changes_the_text_gets_text() -> None:
    template = ChatTemplate(Tokenizer("{% for m in messages %}{{ m['content'] | upper }}{% endfor %}"))
    assert template.render([{"role": "user", "content": "abc"}]) == "ABC"


SEEN: list[dict[str, Any]] = [
    {"role": "user", "content": "What?", "pictures": ["a.png", "b.png"]},
    {"role": "assistant", "content": "Hi"},
    {"role": "user", "content": "And?"},
]
MIXED = (
    "{% for m in messages %}[{{ m.role }}]{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}"
    "{% if p.type == 'image' %}<img>{% else %}{{ p.text }}{% endif %}{% endfor %}{% endif %}{% endfor %}"
)
ALL_PARTS = (
    "{% for m in messages %}[{{ m.role }}]{% for p in m.content %}"
    "{% if p.type == 'image' %}<img>{% elif p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}{% endfor %}"
)
STRINGS = "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}{% endfor %}"
ONLY_STRINGS = "{% for m in messages %}{{ '[' + m.role + ']' + m.content }}{% endfor %}"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (MIXED, "[user]<img><img>What?[assistant]Hi[user]And?"),
        (ALL_PARTS, "[user]<img><img>What?[assistant]Hi[user]And?"),
        (STRINGS, "[user]<img>\n<img>\nWhat?[assistant]Hi[user]And?"),
        (ONLY_STRINGS, "[user]<img>\n<img>\nWhat?[assistant]Hi[user]And?"),
    ],
    ids=["mixed", "parts", "strings", "joined strings"],
)
def test_pictures_are_placed_as_the_template_expects(source: str, expected: str) -> None:
    assert ChatTemplate(Tokenizer(source)).render(SEEN, picture_mark="<img>") == expected


@pytest.mark.parametrize("source", [MIXED, ALL_PARTS, STRINGS])
def test_an_answer_about_a_picture_can_be_continued(source: str) -> None:
    text = ChatTemplate(Tokenizer(source)).render(SEEN[:2], picture_mark="<img>", continue_last=True)
    assert text.count("<img>") == 2
    assert text.endswith("Hi")


def test_a_picture_without_text() -> None:
    assert (
        ChatTemplate(Tokenizer(ALL_PARTS)).render([{**SEEN[0], "content": ""}], picture_mark="<img>")
        == "[user]<img><img>"
    )


def test_template_without_a_place_for_pictures_is_refused() -> None:
    with pytest.raises(BadInput, match="no place for pictures"):
        ChatTemplate(Tokenizer("{% for m in messages %}[{{ m.role }}]{% endfor %}")).render(SEEN, picture_mark="<img>")


def test_the_refusal_of_a_template_is_reported_for_pictures() -> None:
    with pytest.raises(TemplateRefusal, match="No pictures"):
        ChatTemplate(Tokenizer("{{ raise_exception('No pictures') }}")).render(SEEN, picture_mark="<img>")
