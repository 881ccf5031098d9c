"""Problems of engines with planned checkpoints, and the repair of a bits map."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.bitsmap import BitsMap, Rule, with_layers
from core.errors import BadInput
from core.formats import engines
from core.formats.auto_round import choose_packing
from core.formats.config_names import config_layout
from core.formats.engines import ENGINES, EngineIssue
from core.formats.grids import plan_layers
from core.formats.names import FORMATS as ALL
from core.formats.names import is_gguf
from core.model.tree import ModelTree, resolve_schemes
from core.schemes import LayerScheme
from tests.core.paper_model import SHAPES, llama, mixture

TREE = llama(3, tied=False)
FORMATS = ("auto_round", "auto_gptq", "gptqmodel", "auto_awq")
W4, W8 = LayerScheme(4, 64), LayerScheme(8, 64)
SCHEMES = st.builds(
    LayerScheme, st.sampled_from([2, 3, 4, 8, 16]), st.sampled_from([-1, 32, 64, 96, 128, 192, 288]), st.booleans()
)
ODD = llama(2, shapes={**SHAPES, "self_attn.v_proj": (40, 576)})


def marks(engine: str, chosen: BitsMap, name: str = "auto_round", tree: ModelTree = TREE) -> list[EngineIssue]:
    return engines.check(engine, tree, resolve_schemes(tree, chosen), name)


def rejected(found: list[EngineIssue]) -> set[str]:
    return {mark.layer.removeprefix("model.layers.") for mark in found if mark.cannot}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("engine", ["bitwright", "vllm-cuda", "vllm-cpu"])
def test_four_symmetric_bits_have_no_problems(engine: str, name: str) -> None:
    assert marks(engine, BitsMap(W4), name) == []


def test_bitwright_runs_all_that_it_writes() -> None:
    chosen = BitsMap(LayerScheme(3, 96, False), (Rule("*.q_proj", bits=16), Rule("*.down_proj", bits=2, sym=True)))
    assert marks("bitwright", chosen) == []


@pytest.mark.parametrize("name", ["auto_round", "auto_gptq", "gptqmodel"])
@pytest.mark.parametrize("bits", [2, 3])
def test_vllm_has_no_kernel_for_two_and_three_bits(bits: int, name: str) -> None:
    found = marks("vllm-cuda", BitsMap(W8, (Rule("*.0.mlp.down_proj", bits=bits),)), name)
    assert [(mark.layer, mark.severity, mark.repair) for mark in found] == [
        ("model.layers.0.mlp.down_proj", "cannot", W4)
    ]


def test_vllm_supports_few_group_sizes() -> None:
    found = marks("vllm-cuda", BitsMap(W4, (Rule("*.down_proj", group_size=256), Rule("*.o_proj", group_size=-1))))
    assert {(mark.layer.rpartition(".")[2], mark.repair) for mark in found} == {("down_proj", LayerScheme(4, 128))}


def test_a_repaired_group_divides_the_inputs() -> None:
    tree = llama(1, shapes={"mlp.down_proj": (64, 96)})
    assert [mark.repair for mark in marks("vllm-cuda", BitsMap(LayerScheme(4, 96)), tree=tree)] == [LayerScheme(4, 32)]


def test_vllm_on_a_cpu_supports_four_bits_only() -> None:
    found = marks("vllm-cpu", BitsMap(W4, (Rule("*.down_proj", bits=8),)))
    assert rejected(found) == {f"{block}.mlp.down_proj" for block in range(3)}
    assert {mark.repair for mark in found} == {LayerScheme(16, 64)}


def test_vllm_rejects_autorounds_own_packing() -> None:
    found = marks("vllm-cuda", BitsMap(LayerScheme(4, 64), (Rule("*.down_proj", sym=False),)))
    assert (found[0].layer, found[0].severity, found[0].repair) == ("", "cannot", None)
    assert found[0].sentence().startswith("vLLM does not support AutoRound's own packing")
    assert rejected(found[1:]) == {f"{block}.mlp.down_proj" for block in range(3)}


@pytest.mark.parametrize("engine", ["vllm-cuda", "vllm-cpu"])
@pytest.mark.parametrize("name", ["auto_round", "auto_awq"])
def test_vllm_supports_asymmetric_layers_in_awqs_layout(name: str, engine: str) -> None:
    assert marks(engine, BitsMap(LayerScheme(4, 64, False)), name) == []
    assert marks(engine, BitsMap(LayerScheme(4, 64, False)), "auto_gptq")


@pytest.mark.parametrize(
    ("engine", "name", "severity"),
    [
        ("vllm-cuda", "auto_round", "slow"),
        ("vllm-cuda", "auto_awq", "slow"),
        ("vllm-cpu", "auto_round", "cannot"),
        ("vllm-cpu", "auto_awq", None),
    ],
)
def test_other_group_sizes_in_awqs_layout_lack_a_fast_kernel(engine: str, name: str, severity: str | None) -> None:
    found = marks(engine, BitsMap(LayerScheme(4, 192, False)), name)
    assert {mark.severity for mark in found} == ({severity} if severity else set())


@pytest.mark.parametrize(("engine", "severity"), [("vllm-cuda", "slow"), ("vllm-cpu", "cannot")])
def test_autorounds_symmetric_layers_in_awqs_layout_have_no_fast_kernel(engine: str, severity: str) -> None:
    assert {mark.severity for mark in marks(engine, BitsMap(W4), "auto_round:auto_awq")} == {severity}
    assert marks(engine, BitsMap(W4), "auto_awq") == []


@pytest.mark.parametrize("name", ["auto_round:gptqmodel", "auto_round:plain"])
def test_vllm_supports_two_of_autorounds_packings(name: str) -> None:
    assert [(mark.layer, mark.severity) for mark in marks("vllm-cuda", BitsMap(W4), name)] == [("", "cannot")]
    assert marks("vllm-cuda", BitsMap(W4), "auto_round:auto_gptq") == []


def test_fused_layers_of_a_block_must_have_the_same_scheme() -> None:
    chosen = BitsMap(W4, layers=(Rule("model.layers.1.self_attn.k_proj", bits=8),))
    found = marks("vllm-cuda", chosen)
    assert rejected(found) == {f"1.self_attn.{part}_proj" for part in "qkv"}
    assert {mark.repair for mark in found} == {W8}
    assert marks("transformers-auto-round", chosen) == []


@pytest.mark.parametrize("name", ["auto_round", "auto_gptq", "gptqmodel"])
def test_fused_layers_may_differ_from_the_default(name: str) -> None:
    rules = (
        Rule("*.1.self_attn.[qkv]_proj", bits=8),
        Rule("*.0.mlp.gate_proj", bits=16),
        Rule("*.0.mlp.up_proj", bits=16),
    )
    assert marks("vllm-cuda", BitsMap(W4, rules, (Rule("lm_head", bits=4),)), name) == []


def test_fused_layers_stay_in_16_bits_together_in_auto_awq() -> None:
    found = marks("vllm-cuda", BitsMap(W4, layers=(Rule("model.layers.1.mlp.up_proj", bits=16),)), "auto_awq")
    assert rejected(found) == {"1.mlp.gate_proj", "1.mlp.up_proj"}


@pytest.mark.parametrize("name", ["auto_round", "auto_gptq"])
def test_a_quantized_tied_head_is_checked_like_other_layers(name: str) -> None:
    tree = llama(1)
    chosen = BitsMap(W4, layers=(Rule("lm_head", bits=3),))
    found = marks("vllm-cuda", chosen, name, tree)
    assert [(mark.layer, mark.repair) for mark in found] == [("lm_head", W4)]
    repaired = engines.repaired("vllm-cuda", tree, chosen, name)
    assert resolve_schemes(tree, repaired)[-1].scheme == W4


@pytest.mark.parametrize("name", [name for name in ALL if ":" in name or name in ("auto_round", "gguf")])
def test_gptqmodel_supports_gptq_and_awq_only(name: str) -> None:
    assert [(mark.layer, mark.severity) for mark in marks("gptqmodel", BitsMap(W4), name)] == [("", "cannot")]


@pytest.mark.parametrize("name", ["auto_gptq", "gptqmodel", "auto_awq"])
def test_gptqmodel_supports_its_formats(name: str) -> None:
    assert marks("gptqmodel", BitsMap(W4), name) == []


def test_gptqmodel_rejects_large_groups_in_awqs_layout() -> None:
    tree = llama(1, shapes={"mlp.down_proj": (64, 512)})
    assert [mark.repair for mark in marks("gptqmodel", BitsMap(LayerScheme(4, 256)), "auto_awq", tree)] == [
        LayerScheme(4, 128)
    ]
    assert {mark.severity for mark in marks("gptqmodel", BitsMap(LayerScheme(4, 256)), "auto_gptq", tree)} == {"slow"}


def test_auto_round_rejects_version_2_of_gptq() -> None:
    found = marks("transformers-auto-round", BitsMap(W4), "gptqmodel")
    assert [(mark.layer, mark.severity) for mark in found] == [("", "cannot")]


@pytest.mark.parametrize(
    ("scheme", "severity"),
    [
        (LayerScheme(4, 64), None),
        (LayerScheme(4, 32, False), None),
        (LayerScheme(8, -1), None),
        (LayerScheme(8, 64, False), "slow"),
        (LayerScheme(3, 64), "slow"),
        (LayerScheme(2, 64), "slow"),
        (LayerScheme(4, 96), "cannot"),
    ],
)
def test_gptqmodel_severity_by_scheme(scheme: LayerScheme, severity: str | None) -> None:
    tree = llama(1, shapes={"mlp.down_proj": (64, 384)})
    found = marks("gptqmodel", BitsMap(scheme), "gptqmodel", tree)
    assert [mark.severity for mark in found] == ([severity] if severity else [])


def test_gptqmodel_supports_asymmetric_layers_in_version_2_only() -> None:
    found = marks("gptqmodel", BitsMap(LayerScheme(4, 64, False)), "auto_gptq")
    assert {(mark.severity, mark.repair) for mark in found} == {("cannot", W4)}


def test_gptqmodel_supports_one_group_per_row() -> None:
    tree = llama(1, shapes={"mlp.down_proj": (64, 96)})
    assert [mark.severity for mark in marks("gptqmodel", BitsMap(LayerScheme(4, 96)), "auto_gptq", tree)] == ["slow"]


@pytest.mark.parametrize(
    ("scheme", "name", "severity"),
    [
        (LayerScheme(3, 64), "auto_round", "slow"),
        (LayerScheme(2, 64), "auto_gptq", None),
        (LayerScheme(2, 64, False), "auto_round", None),
        (LayerScheme(4, 64, False), "auto_round", "slow"),
        (LayerScheme(8, 64, False), "auto_gptq", "slow"),
        (LayerScheme(3, 64, False), "auto_gptq", "cannot"),
        (LayerScheme(3, 64, False), "auto_round:auto_gptq", "cannot"),
        (LayerScheme(4, 64, False), "auto_round:gptqmodel", None),
        (LayerScheme(4, 64, True), "auto_awq", "slow"),
    ],
)
def test_transformers_with_auto_round_severity_by_scheme(scheme: LayerScheme, name: str, severity: str | None) -> None:
    found = marks("transformers-auto-round", BitsMap(scheme), name)
    assert {mark.severity for mark in found} == ({severity} if severity else set())


@pytest.mark.parametrize("name", [name for name in ALL if not is_gguf(name)])
def test_llama_cpp_supports_gguf_only(name: str) -> None:
    assert [mark.sentence() for mark in marks("llama-cpp", BitsMap(W4), name)] == [
        "llama.cpp supports GGUF only; choose gguf."
    ]


@pytest.mark.parametrize(
    ("engine", "severities"),
    [
        ("bitwright", []),
        ("llama-cpp", []),
        ("transformers-auto-round", ["slow"]),
        ("vllm-cuda", ["cannot"]),
        ("gptqmodel", ["cannot"]),
    ],
)
@pytest.mark.parametrize("name", ["gguf", "gguf:q5_k_m"])
def test_support_of_gguf_by_engine(engine: str, severities: list[str], name: str) -> None:
    found = engines.check(engine, TREE, plan_layers(TREE, BitsMap(W4), (name,)), name)
    assert [mark.severity for mark in found] == severities


@pytest.mark.parametrize("call", [lambda: engines.title("ollama"), lambda: engines.allowed("ollama", "auto_round")])
def test_an_unknown_engine_is_rejected(call: object) -> None:
    with pytest.raises(BadInput, match="Unknown engine 'ollama'"):
        call()  # type: ignore[operator]


def test_an_unquantized_model_has_no_problems() -> None:
    assert all(
        marks(engine, BitsMap(LayerScheme(16)), "auto_gptq") == [] for engine in ENGINES if engine != "llama-cpp"
    )


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(ENGINES),
    st.sampled_from(FORMATS),
    st.sampled_from([TREE, ODD]),
    SCHEMES,
    st.lists(st.tuples(st.integers(0, 100), SCHEMES), max_size=8),
)
def test_the_repaired_map_has_no_rejected_layer(
    engine: str, name: str, tree: ModelTree, default: LayerScheme, edits: list[tuple[int, LayerScheme]]
) -> None:
    chosen = BitsMap(default)
    for place, scheme in edits:
        layer = tree.block_linears[place % len(tree.block_linears)]
        chosen = with_layers(chosen, [layer], bits=scheme.bits, group_size=scheme.group_size, sym=scheme.sym)
    if not tree.tied:
        chosen = with_layers(chosen, ["lm_head"], bits=default.bits, exact_only=["lm_head"])
    repaired = engines.repaired(engine, tree, chosen, name)
    found = marks(engine, repaired, name, tree)
    assert rejected(found) <= {""}
    assert engines.repaired(engine, tree, repaired, name) == repaired
    if engine.startswith("vllm"):
        assert rejected(found) == set()
    before, after = resolve_schemes(tree, chosen), resolve_schemes(tree, repaired)
    assert all(new.scheme.bits >= old.scheme.bits for old, new in zip(before, after, strict=True))


def test_repairing_a_supported_map_returns_the_same_map() -> None:
    chosen = BitsMap(W4, (Rule("*.down_proj", bits=8),))
    assert engines.repaired("vllm-cuda", TREE, chosen, "auto_round") is chosen


def test_the_repair_changes_only_rejected_layers() -> None:
    chosen = BitsMap(
        W4, layers=(Rule("model.layers.1.mlp.down_proj", bits=2), Rule("model.layers.0.mlp.up_proj", bits=8))
    )
    repaired = engines.repaired("vllm-cuda", TREE, chosen, "auto_round")
    changed = {
        old.linear.name
        for old, new in zip(resolve_schemes(TREE, chosen), resolve_schemes(TREE, repaired), strict=True)
        if old.scheme != new.scheme
    }
    assert changed == {"model.layers.1.mlp.down_proj", "model.layers.0.mlp.gate_proj"}


@given(st.lists(SCHEMES, min_size=1, max_size=3))
def test_the_assumed_packing_is_the_one_that_is_written(chosen: list[LayerScheme]) -> None:
    bits_map = BitsMap(
        chosen[0], tuple(Rule(f"*.{n}.*", s.bits, s.group_size, s.sym) for n, s in enumerate(chosen[1:]))
    )
    plans = resolve_schemes(TREE, bits_map)
    used = {plan.scheme for plan in plans if plan.scheme.quantized}
    if used:
        assert engines._packing("auto_round", used) == choose_packing(config_layout(plans, str)).name


def test_vllm_has_one_scheme_for_all_experts_of_a_block() -> None:
    tree = mixture(2, 3, hidden=64, intermediate=64)
    chosen = BitsMap(W4, (Rule("model.layers.1.mlp.experts.*.down_proj", bits=8),))
    found = marks("vllm-cuda", chosen, tree=tree)
    assert rejected(found) == {
        f"1.mlp.experts.{expert}.{kind}_proj" for expert in range(3) for kind in ("gate", "up", "down")
    }
    assert {mark.reason for mark in found} == {
        "gate_proj, up_proj, down_proj of all experts of a block are computed together and must have the same scheme"
    }
    repaired = engines.repaired("vllm-cuda", tree, chosen, "auto_round")
    assert marks("vllm-cuda", repaired, tree=tree) == []
    assert {plan.scheme.bits for plan in resolve_schemes(tree, repaired) if ".1.mlp.experts" in plan.linear.name} == {8}
    assert marks("transformers-auto-round", chosen, tree=tree) == []


def test_auto_round_computes_wrong_results_for_gpt_oss() -> None:
    tree = replace(mixture(2, 4), model_type="gpt_oss")
    for chosen in (BitsMap(W4), BitsMap(W4, (Rule("*.experts.*", bits=16),))):
        found = marks("transformers-auto-round", chosen, tree=tree)
        assert [mark.reason for mark in found if mark.cannot] == ["auto-round computes wrong results for gpt_oss"]


@pytest.mark.parametrize(
    ("engine", "model_type", "reason"),
    [
        ("transformers-auto-round", "llama4_text", "does not load quantized experts of llama4_text"),
        ("vllm-cuda", "granitemoe", "under other names only"),
    ],
)
def test_experts_that_an_engine_does_not_read_are_a_problem_of_the_whole_checkpoint(
    engine: str, model_type: str, reason: str
) -> None:
    tree = replace(mixture(2, 4), model_type=model_type)
    (found,) = (mark for mark in marks(engine, BitsMap(W4), tree=tree) if not mark.layer)
    assert found.cannot
    assert reason in found.reason
    kept = marks(engine, BitsMap(W4, (Rule("*.experts.*", bits=16),)), tree=tree)
    assert all(mark.layer for mark in kept)
