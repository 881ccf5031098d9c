"""Chat templates in their own process: what transformers renders, and the bounds that no template gets beyond."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
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
    """What is asked of one."""

    def __init__(self, template: Any) -> None:
        self.chat_template = template
        self.special_tokens_map = {"bos_token": "<s>", "eos_token": "</s>"}


def render(template: Any, messages: list[dict[str, Any]] = TALK, **options: Any) -> str:
    return ChatTemplate(Tokenizer(template)).render(messages, **options)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Less patience, for templates that do not end."""
    monkeypatch.setattr(chat_template, "WALL_SECONDS", 0.5)
    return


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("variables", [{}, {"enable_thinking": True}])
def test_it_is_what_transformers_renders(template: str, variables: dict[str, Any]) -> None:
    known = {"bos_token": "<s>", "eos_token": "</s>", **variables}
    expected, _ = render_jinja_template([TALK], chat_template=template, add_generation_prompt=True, **known)
    assert render(template, variables=variables) == expected[0]


@pytest.mark.parametrize("content", ["Hi th", "Hi ", " Hi\n"])
@pytest.mark.parametrize("template", [TEMPLATES[0], TEMPLATES[0].replace(" | trim", "")])
def test_a_message_is_continued_as_by_transformers(template: str, content: str) -> None:
    messages = [*TALK, {"role": "assistant", "content": content}]
    expected, _ = render_jinja_template([messages], chat_template=template, continue_final_message=True)
    assert render(template, messages, continue_last=True) == expected[0]


def test_a_template_that_hides_the_last_message_cannot_continue_it() -> None:
    with pytest.raises(TemplateRefusal, match="does not write the last message"):
        render("{{ messages[0].content }}", continue_last=True)


@pytest.mark.parametrize(
    ("template", "text"),
    [(None, ""), ("x", "x"), ({"default": "d", "tool_use": "t"}, "d"), ({"rag": "r"}, ""), (3, "")],
)
def test_of_several_templates_it_is_the_default(template: Any, text: str) -> None:
    assert ChatTemplate(Tokenizer(template)).text == text


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('Roles must alternate.') }}", "refuses this conversation: Roles must alternate."),
        ("{{ 1 / 0 }}", "fails on this conversation: ZeroDivisionError: division by zero."),
        ("{{ 10.0 ** 400 }}", "fails on this conversation: OverflowError"),
        ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "calls itself without end"),
        ("{{ nothing() }}", "'nothing' is undefined"),
        ("{{ lipsum.__globals__['os'].getcwd() }}", "is unsafe"),
        ("{% set n = namespace(__class__=1) %}", "cannot hold '__class__'"),
        ("{{ messages.append(1) }}", "is unsafe|is not safely"),
        ("{% for m in messages %}{{ m.content.nothing.more }}{% endfor %}", "has no attribute"),
    ],
)
def test_what_a_template_raises_is_told_in_its_words(template: str, said: str) -> None:
    with pytest.raises(TemplateRefusal, match=said) as caught:
        render(template)
    assert "\n" not in caught.value.message


def test_a_mistake_in_a_template_is_told_with_its_line() -> None:
    with pytest.raises(BadInput, match=r"has a mistake: .* \(line 2\)") as caught:
        render("a\n{% if %}")
    assert not isinstance(caught.value, TemplateRefusal)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("work", ["", "{% set n = namespace(a=[]) %}{% set n.a = n.a + [1] %}"])
def test_a_template_that_does_not_end_is_stopped(work: str) -> None:
    loops = "{% for i in range(99999) %}" * 3 + work + "{% endfor %}" * 3
    with pytest.raises(BadInput, match="did not end in time") as caught:
        render(loops)
    assert not isinstance(caught.value, TemplateRefusal)
    assert render("fine") == "fine"


@pytest.mark.parametrize(
    ("template", "said"), [("{{ 'a' * 3000000000 }}", "MiB of memory"), ("{{ 'a' * 9000000 }}", "writes")]
)
def test_a_template_that_takes_too_much_is_stopped(template: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        render(template)
    assert render("fine") == "fine"


def test_a_long_conversation_is_not_too_long() -> None:
    assert len(render("{{ messages[0].content }}", [{"role": "user", "content": "x" * 3_000_000}])) == 3_000_000


def test_half_a_character_is_kept() -> None:
    assert render("{{ messages[0].content }}", [{"role": "user", "content": "\ud83d"}]) == "\ud83d"


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(BadInput, match="cannot be given"):
        render("x", variables={"a": object()})


def test_a_stop_ends_a_rendering() -> None:
    asked = iter([False, True])
    with pytest.raises(Cancelled):
        render(
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
            should_stop=lambda: next(asked),
        )
    assert render("fine") == "fine"


def process() -> int:
    render("fine")
    child = chat_template._PROCESS._child
    assert child is not None
    return child.pid


def test_one_process_renders_all() -> None:
    assert process() == process()


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_it_ignores_an_interrupt_and_is_started_again_when_it_is_gone() -> None:
    first = process()
    os.kill(first, signal.SIGINT)
    assert process() == first
    os.kill(first, signal.SIGKILL)
    chat_template._PROCESS._child.wait()  # type: ignore[union-attr]
    assert process() != first


def test_two_threads_get_their_own_texts() -> None:
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


def test_without_a_process_it_is_rendered_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Any:
        raise OSError("no more processes")

    monkeypatch.setattr(chat_template, "_PROCESS", chat_template._Process())
    monkeypatch.setattr(chat_template, "_start", none)
    assert render("{{ messages[1].role }}") == "user"
    with pytest.raises(TemplateRefusal, match="division by zero"):
        render("{{ 1 / 0 }}")


PARTS = "{% for p in m['content'] %}{% if p['type'] == 'text' %}{{ p['text'] }}{% endif %}{% endfor %}"


@pytest.mark.parametrize("content", [PARTS, "{{ m['content'][0]['text'] }}", "{{ m.content[0].text | trim }}"])
def test_a_template_that_reads_parts_gets_parts(content: str) -> None:
    template = ChatTemplate(Tokenizer(f"{{% for m in messages %}}<{{{{ m['role'] }}}}>{content}{{% endfor %}}"))
    assert template.render(TALK[1:2]) == "<user>Grüße \U0001f600\n{{ 1 }}"
    half = [*TALK[1:2], {"role": "assistant", "content": "Hi"}]
    assert template.render(half, continue_last=True) == "<user>Grüße \U0001f600\n{{ 1 }}<assistant>Hi"


def test_a_template_that_changes_text_gets_text() -> None:
    template = ChatTemplate(Tokenizer("{% for m in messages %}{{ m['content'] | upper }}{% endfor %}"))
    assert template.render([{"role": "user", "content": "abc"}]) == "ABC"
