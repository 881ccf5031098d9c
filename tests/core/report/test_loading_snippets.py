"""Tests of the code and the notes for loading a checkpoint in other programs."""

from __future__ import annotations

import ast
import shlex
from pathlib import Path
from typing import Any

import pytest

from core.report.loading_snippets import Snippet, folder_to_open, snippets


def report(*formats: str, bits: dict[str, int] | None = None, **default: Any) -> dict[str, Any]:
    scheme = {"bits": 4, "group_size": 128, "sym": True, **default}
    return {
        "output_bytes": dict.fromkeys(formats or ("auto_round",), 1),
        "layers_by_bits": bits or {str(scheme["bits"]): 7, "16": 2},
        "bits_map": {"version": 1, "default": scheme, "rules": [], "layers": {}},
        "fallbacks": {},
    }


def named(found: tuple[Snippet, ...], name: str) -> Snippet:
    return next(snippet for snippet in found if snippet.name == name)


@pytest.mark.parametrize("name", ["auto_round", "auto_gptq", "auto_awq", "gguf:q4_k_m"])
@pytest.mark.parametrize("folder", ["/models/out", '/my models/it\'s "four" bits', "C:\\models\\out"])
def test_code_is_valid_for_any_folder_name(folder: str, name: str) -> None:
    named = {folder, str(Path(folder) / "it.gguf")}
    for snippet in snippets({**report(name), "files": {"it.gguf": 1}}, folder):
        if snippet.language == "python":
            strings = [node.value for node in ast.walk(ast.parse(snippet.code)) if isinstance(node, ast.Constant)]
            assert named.intersection(strings)
        elif snippet.code:
            assert named.intersection(shlex.split(snippet.code, comments=True))


def test_several_formats_have_a_folder_each() -> None:
    found = snippets(report("auto_round", "auto_gptq"), "/out")
    assert "/out/auto_round" in named(found, "transformers").code
    assert "/out/auto_gptq" in named(found, "transformers (GPTQ)").code
    assert folder_to_open(report("auto_round", "auto_gptq"), "/out") == "/out/auto_round"


def test_folders_have_the_names_that_the_run_uses() -> None:
    both = {**report("auto_round", "gguf:q4_0"), "files": {"auto_round/x": 1, "gguf-q4_0/tiny-Q4_0.gguf": 1}}
    assert "/out/gguf-q4_0/tiny-Q4_0.gguf" in named(snippets(both, "/out"), "llama.cpp").code
    assert folder_to_open(report("gguf:q4_0", "auto_round"), "/out") == "/out/gguf-q4_0"


def test_gguf_loads_in_programs_based_on_llama_cpp() -> None:
    found = snippets({**report("gguf"), "files": {"my-Model.gguf": 1}}, "/out")
    assert [snippet.name for snippet in found if snippet.code] == [
        "Bitwright", "llama.cpp", "Ollama", "LM Studio", "llama-cpp-python", "transformers (GGUF)",
    ]  # fmt: skip
    assert "ollama run my-model\n" in named(found, "Ollama").code
    assert "gguf_file='my-Model.gguf'" in named(found, "transformers (GGUF)").code


def test_the_awq_layout_needs_third_party_kernels() -> None:
    found = named(snippets(report(sym=False), "/out"), "transformers")
    assert (found.support, "auto-round-lib" in found.code) == ("documented", True)
    found = named(snippets(report(sym=False, bits={"8": 3}), "/out"), "transformers")
    assert (found.support, "auto-round-lib" in found.code) == ("tested", False)


def test_gptqmodel_reads_asymmetric_layers_in_version_2_only() -> None:
    assert named(snippets(report("auto_gptq", sym=False), "/out"), "GPTQModel").support == "no"
    assert named(snippets(report("gptqmodel", sym=False), "/out"), "GPTQModel").support == "documented"


def test_transformers_reads_gptq_of_one_scheme() -> None:
    mixed = report("auto_gptq", bits={"4": 3, "8": 2})
    assert [(named(snippets(mixed, "/out"), name).code != "") for name in ("GPTQModel", "transformers (GPTQ)")] == [
        True, False,
    ]  # fmt: skip


def test_one_format_is_the_folder_itself() -> None:
    assert folder_to_open(report("auto_gptq"), "/out") == "/out"


def test_only_written_formats_are_included() -> None:
    assert "transformers" not in [snippet.name for snippet in snippets(report("auto_gptq"), "/out")]


def test_formats_that_the_tests_load_are_tested() -> None:
    found = snippets(report("auto_round", "auto_gptq"), "/out")
    assert [snippet.name for snippet in found if snippet.support == "tested"] == ["Bitwright", "transformers"]


def test_the_usual_scheme_is_documented_for_servers() -> None:
    assert named(snippets(report(), "/out"), "vLLM").support == "documented"


def test_asymmetric_layers_are_documented_in_awqs_layout() -> None:
    assert named(snippets(report("auto_awq", sym=False), "/out"), "vLLM").support == "documented"


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (report(bits={"2": 3}), "2 and 3 bits"),
        (report("auto_gptq", sym=False), "symmetric layers only"),
        (report(sym=False, bits={"8": 3}), "own packing"),
        (report("auto_round:plain"), "two of AutoRound's packings"),
    ],
)
def test_a_checkpoint_that_vllm_cannot_load_has_no_code(found: dict[str, Any], reason: str) -> None:
    snippet = named(snippets(found, "/out"), "vLLM")
    assert (snippet.support, snippet.code) == ("no", "")
    assert reason in snippet.note


def test_the_format_that_a_server_loads_is_chosen() -> None:
    found = named(snippets(report("auto_gptq", "auto_awq", sym=False), "/out"), "vLLM")
    assert found.support == "documented"
    assert "/out/auto_awq" in found.code


@pytest.mark.parametrize(
    ("found", "reason"),
    [(report(bits={"4": 3, "8": 3}), "fuses"), (report(sym=False), "fastest kernels")],
)
def test_unusual_schemes_are_supported_partly(found: dict[str, Any], reason: str) -> None:
    snippet = named(snippets(found, "/out"), "vLLM")
    assert snippet.support == "partly"
    assert reason in snippet.note


def test_written_schemes_have_priority_over_requested_ones() -> None:
    found = {**report(group_size=128), "fallbacks": {"x": "why"}, "layer_schemes": {"auto_round": {"W4 g64 sym": 9}}}
    assert named(snippets(found, "/out"), "vLLM").support == "documented"
    found["layer_schemes"] = {"auto_round": {"W4 g64 sym": 9, "W4 row asym": 1}}
    assert named(snippets(found, "/out"), "vLLM").support == "no"


def test_reduced_group_sizes_are_not_usual() -> None:
    found = report()
    found["fallbacks"] = {"model.layers.0.q": "group 128 does not divide 576: 64"}
    assert named(snippets(found, "/out"), "vLLM").support == "partly"


def test_a_program_that_cannot_load_the_checkpoint_has_no_code() -> None:
    found = named(snippets(report(), "/out"), "llama.cpp")
    assert (found.code, found.support) == ("", "no")


def test_an_empty_report_gives_snippets() -> None:
    assert [snippet.name for snippet in snippets({}, "/out")][:2] == ["Bitwright", "transformers"]


def test_programs_that_reject_the_checkpoint_have_no_code() -> None:
    reason = "vLLM loads the experts of mixtral under other names only."
    rejected = {"auto_round": {"transformers-auto-round": "auto-round cannot.", "vllm-cuda": reason}}
    found = snippets({**report("auto_round"), "rejected_by": rejected}, "/out")
    assert (named(found, "transformers").code, named(found, "transformers").note) == ("", "auto-round cannot.")
    assert named(found, "vLLM").code == ""
    assert reason in named(found, "vLLM").note
    assert named(found, "SGLang").code
    assert named(found, "Bitwright").code


@pytest.mark.parametrize(
    ("kinds", "name"),
    [
        ([], "AutoModelForCausalLM"),
        (["mtp"], "AutoModelForCausalLM"),
        (["vision", "projector"], "AutoModelForImageTextToText"),
        (["audio"], "AutoModelForMultimodalLM"),
    ],
)
def test_the_auto_class_of_transformers_is_that_of_the_model(kinds: list[str], name: str) -> None:
    found = snippets({**report("auto_round"), "towers": [{"kind": kind} for kind in kinds]}, "out")
    assert name in next(snippet.code for snippet in found if snippet.name == "transformers")
