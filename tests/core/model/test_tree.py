"""The layer tree of every family from checkpoints of transformers, and the reasons for unsupported models."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from core import bitsmap
from core.bitsmap import BitsMap, Rule
from core.errors import BadInput
from core.model.headers import TensorInfo, read_folder
from core.model.tensor_part import TensorPart
from core.model.tree import TOWER, ModelTree, build_tree, resolve_schemes
from core.schemes import LayerScheme
from tests.core import paper_model

SMALL: dict[str, Any] = {
    "vocab_size": 160,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "head_dim": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT2: dict[str, Any] = {
    "vocab_size": 160, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 160, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
OPT: dict[str, Any] = {
    "vocab_size": 160, "hidden_size": 64, "ffn_dim": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "max_position_embeddings": 64, "word_embed_proj_dim": 32,
}  # fmt: skip
SEPARATE = {
    "self_attn.q_proj": (64, 64),
    "self_attn.k_proj": (64, 32),
    "self_attn.v_proj": (64, 32),
    "self_attn.o_proj": (64, 64),
    "mlp.gate_proj": (64, 96),
    "mlp.up_proj": (64, 96),
    "mlp.down_proj": (96, 64),
}
FUSED = {
    "self_attn.qkv_proj": (64, 128),
    "self_attn.o_proj": (64, 64),
    "mlp.gate_up_proj": (64, 192),
    "mlp.down_proj": (96, 64),
}
CONV = {
    "attn.c_attn": (64, 192),
    "attn.c_proj": (64, 64),
    "mlp.c_fc": (64, 256),
    "mlp.c_proj": (256, 64),
}
DECODER = {
    "self_attn.q_proj": (64, 64),
    "self_attn.k_proj": (64, 64),
    "self_attn.v_proj": (64, 64),
    "self_attn.out_proj": (64, 64),
    "fc1": (64, 96),
    "fc2": (96, 64),
}
# family: config class, settings, prefix, linears of a block, their biases, embedding, head (None: tied)
FAMILIES: dict[str, tuple[str, dict[str, Any], str, dict[str, tuple[int, int]], set[str], str, str | None]] = {
    "llama": ("LlamaConfig", SMALL, "model.layers", SEPARATE, set(), "model.embed_tokens", "lm_head"),
    "llama tied": (
        "LlamaConfig", SMALL | {"tie_word_embeddings": True}, "model.layers", SEPARATE, set(), "model.embed_tokens",
        None,
    ),
    "qwen2": (
        "Qwen2Config", SMALL, "model.layers", SEPARATE,
        {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}, "model.embed_tokens", "lm_head",
    ),
    "qwen3": ("Qwen3Config", SMALL, "model.layers", SEPARATE, set(), "model.embed_tokens", "lm_head"),
    "mistral": ("MistralConfig", SMALL, "model.layers", SEPARATE, set(), "model.embed_tokens", "lm_head"),
    "gemma2": ("Gemma2Config", SMALL, "model.layers", SEPARATE, set(), "model.embed_tokens", None),
    "gemma3": ("Gemma3TextConfig", SMALL, "model.layers", SEPARATE, set(), "model.embed_tokens", None),
    "phi3": ("Phi3Config", SMALL, "model.layers", FUSED, set(), "model.embed_tokens", "lm_head"),
    "opt": ("OPTConfig", OPT, "model.decoder.layers", DECODER, set(DECODER), "model.decoder.embed_tokens", None),
    "gpt2": ("GPT2Config", GPT2, "transformer.h", CONV, set(CONV), "transformer.wte", None),
}  # fmt: skip


def save(folder: Path, config: str, settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(getattr(transformers, config)(**settings)).save_pretrained(folder)


def tree_of(folder: Path) -> ModelTree:
    return build_tree(json.loads((folder / "config.json").read_text()), read_folder(folder))


@pytest.fixture(scope="module", params=FAMILIES, ids=str)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ModelTree]:
    folder = tmp_path_factory.mktemp("family")
    save(folder, *FAMILIES[request.param][:2])
    return request.param, tree_of(folder)


def test_blocks_are_found(family: tuple[str, ModelTree]) -> None:
    name, tree = family
    assert (tree.prefix, tree.blocks, tree.refusal) == (FAMILIES[name][2], 3, "")


def test_linears_have_their_shapes(family: tuple[str, ModelTree]) -> None:
    name, tree = family
    for block in range(3):
        found = {linear.kind: (linear.in_features, linear.out_features) for linear in tree.of_block(block)}
        assert found == FAMILIES[name][3]


def test_linears_are_named_as_in_the_checkpoint(family: tuple[str, ModelTree]) -> None:
    _, tree = family
    assert all(f"{linear.name}.weight" in tree.tensors for linear in tree.linears)


def test_biases_are_detected(family: tuple[str, ModelTree]) -> None:
    name, tree = family
    assert {linear.kind for linear in tree.of_block(0) if linear.has_bias} == FAMILIES[name][4]


def test_only_gpt2_is_stored_transposed(family: tuple[str, ModelTree]) -> None:
    name, tree = family
    assert {linear.transposed for linear in tree.linears if linear.block >= 0} == {name == "gpt2"}


def test_embedding_and_head_are_distinguished(family: tuple[str, ModelTree]) -> None:
    name, tree = family
    assert (tree.embedding, tree.lm_head, tree.tied) == (*FAMILIES[name][5:], FAMILIES[name][6] is None)


def test_an_untied_head_is_the_last_linear(family: tuple[str, ModelTree]) -> None:
    name, tree = family
    outside = [linear.name for linear in tree.linears if linear.block < 0]
    assert outside == ([] if FAMILIES[name][6] is None else ["lm_head"])
    assert [linear.block for linear in tree.linears[: 3 * len(FAMILIES[name][3])]] == sorted(
        linear.block for linear in tree.linears if linear.block >= 0
    )


def test_parameters_equal_those_of_the_model(family: tuple[str, ModelTree]) -> None:
    name, tree = family
    config = getattr(transformers, FAMILIES[name][0])(**FAMILIES[name][1])
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert tree.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_every_tensor_is_in_a_block_or_outside(family: tuple[str, ModelTree]) -> None:
    _, tree = family
    inside = [name for block in range(tree.blocks) for name in tree.block_tensors(block)]
    outside = [name for name in tree.tensors if not name.startswith(f"{tree.prefix}.")]
    assert sorted(inside + outside) == sorted(tree.tensors)


def test_gpt2_without_prefix_and_with_stored_masks_gives_the_same_tree(tmp_path: Path) -> None:
    save(tmp_path, "GPT2Config", GPT2)
    tree = tree_of(tmp_path)
    bare = {key.removeprefix("transformer."): info for key, info in tree.tensors.items()}
    bare = {key: replace(info, name=key) for key, info in bare.items()}
    for block in range(3):
        bare[f"h.{block}.attn.bias"] = TensorInfo(f"h.{block}.attn.bias", "F32", (1, 1, 160, 160), "m", 0, 102400)
        bare[f"h.{block}.attn.masked_bias"] = TensorInfo(f"h.{block}.attn.masked_bias", "F32", (), "m", 0, 4)
    old = build_tree(tree.config, bare)
    assert (old.prefix, old.blocks, old.refusal, old.embedding, old.tied) == ("h", 3, "", "wte", True)
    assert old.parameters == tree.parameters
    assert [linear.kind for linear in old.linears] == [linear.kind for linear in tree.linears]


def table(shapes: dict[str, tuple[int, ...]], dtype: str = "BF16") -> dict[str, TensorInfo]:
    return {name: TensorInfo(name, dtype, shape, "model.safetensors", 0, 0) for name, shape in shapes.items()}


def llama_table(blocks: int = 2, prefix: str = "model") -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {f"{prefix}.embed_tokens.weight": (160, 64), "lm_head.weight": (160, 64)}
    for block in range(blocks):
        shapes[f"{prefix}.layers.{block}.self_attn.q_proj.weight"] = (64, 64)
        shapes[f"{prefix}.layers.{block}.mlp.down_proj.weight"] = (64, 96)
        shapes[f"{prefix}.layers.{block}.norm.weight"] = (64,)
    return shapes


LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 160, "num_hidden_layers": 2}
REFUSED: dict[str, tuple[dict[str, Any], dict[str, tuple[int, ...]], str, str]] = {
    "a second stack": (
        {},
        {"model.adapters.0.weight": (8, 8)},
        "BF16",
        "a second stack of layers, model.adapters",
    ),
    "encoder-decoder by config": ({"is_encoder_decoder": True}, {}, "BF16", "encoder-decoder"),
    "quantized by config": ({"quantization_config": {"quant_method": "awq"}}, {}, "I32", r"quantized already \(awq\)"),
    "quantized by tensors": ({}, {"model.layers.0.q_proj.qweight": (8, 64)}, "BF16", "quantized already"),
    "8-bit floats": ({}, {}, "F8_E4M3", "F8_E4M3"),
    "integers": ({}, {}, "I8", "I8"),
    "a block too few": ({"num_hidden_layers": 3}, {}, "BF16", "specifies 3 blocks"),
    "a gap": ({}, {"model.layers.7.mlp.down_proj.weight": (64, 96)}, "BF16", "without gaps"),
    "a huge block number": ({}, {"model.layers.999999.mlp.down_proj.weight": (64, 96)}, "BF16", "without gaps"),
    "biases that contradict": (
        {},
        {"model.layers.0.mlp.down_proj.bias": (64,), "model.layers.1.mlp.down_proj.bias": (96,)},
        "BF16",
        "contradict",
    ),
}


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_an_unsupported_model_has_a_reason_and_its_layers_are_listed(case: str) -> None:
    config, extra, dtype, words = REFUSED[case]
    tree = build_tree({**LLAMA, **config}, table({**llama_table(), **extra}, dtype))
    assert re.search(words, tree.refusal)
    assert tree.refusal.endswith(".")
    assert "model.layers.0.self_attn.q_proj" in {linear.name for linear in tree.linears}


@pytest.mark.parametrize("config", [{"num_experts": 16384, "is_moe": False}, {"n_routed_experts": 8}])
def test_a_dense_model_whose_config_has_a_number_of_experts_is_supported(config: dict[str, Any]) -> None:
    """Doge without experts, and Nemotron-H with attention and Mamba only, whose convolutions are 3-D as well."""
    shapes = {**llama_table(), "model.layers.0.mixer.conv1d.weight": (8, 1, 4)}
    assert build_tree({**LLAMA, **config}, table(shapes)).refusal == ""


@pytest.mark.parametrize(
    ("config", "extra"),
    [
        ({"model_type": "zamba2"}, {}),
        ({"num_kv_shared_layers": 1}, {}),
        ({}, {"model.altup_projections.0.weight": (64, 64)}),
        ({"model_type": "gemma4_text"}, {"model.per_layer_model_projection.weight": (32, 64)}),
        ({"num_experts": 8}, {"model.layers.0.mlp.experts.gate_up_proj": (8, 192, 64)}),
    ],
)
def test_blocks_with_more_inputs_than_hidden_states_are_left_to_the_check_of_a_run(
    config: dict[str, Any], extra: dict[str, tuple[int, ...]]
) -> None:
    assert build_tree({**LLAMA, **config}, table({**llama_table(), **extra})).refusal == ""


MIXTURE: dict[str, tuple[int, ...]] = {
    "model.layers.0.mlp.gate.weight": (4, 64),
    "model.layers.0.mlp.experts.gate_up_proj": (4, 64, 64),
    "model.layers.0.mlp.experts.down_proj": (4, 64, 32),
}


def mixture() -> ModelTree:
    return build_tree({**LLAMA, "hidden_size": 64}, table({**llama_table(), **MIXTURE}))


def test_fused_experts_are_listed_one_by_one() -> None:
    tree = mixture()
    experts = [linear for linear in tree.of_block(0) if linear.part is not None]
    assert [linear.kind for linear in experts[:3]] == [
        f"mlp.experts.0.{kind}" for kind in ("gate_proj", "up_proj", "down_proj")
    ]
    assert len(experts) == 12
    up = next(linear for linear in experts if linear.kind == "mlp.experts.2.up_proj")
    assert up.part == TensorPart("model.layers.0.mlp.experts.gate_up_proj", 2, (32, 64, 1), transposed=False)
    assert (up.in_features, up.out_features, tree.stored_bytes(up)) == (64, 32, 2 * 64 * 32)
    assert tree.weight_of(up) == "model.layers.0.mlp.experts.gate_up_proj"


@pytest.mark.parametrize("rules", [(), (Rule("*", bits=2),)])
def test_rules_and_the_default_do_not_apply_to_a_router(rules: tuple[Rule, ...]) -> None:
    plans = {plan.linear.kind: plan for plan in resolve_schemes(mixture(), BitsMap(rules=rules))}
    assert (plans["mlp.gate"].scheme.bits, plans["mlp.gate"].fallback) == (16, "")
    assert "routers stay in 16 bits" in plans["mlp.gate"].why
    assert plans["mlp.experts.3.down_proj"].scheme.bits == (2 if rules else 4)


def test_a_router_that_is_listed_by_name_is_quantized() -> None:
    tree = build_tree(
        {**LLAMA, "hidden_size": 64}, table({**llama_table(), **MIXTURE, "model.layers.0.mlp.gate.weight": (32, 64)})
    )
    plans = resolve_schemes(tree, BitsMap(layers=(Rule("model.layers.0.mlp.gate", bits=8),)))
    assert [plan.scheme.bits for plan in plans if plan.linear.kind == "mlp.gate"] == [8]


def test_a_rule_for_routers_alone_is_an_error() -> None:
    with pytest.raises(BadInput, match=r"\*\.mlp\.gate"):
        resolve_schemes(mixture(), BitsMap(rules=(Rule("*.mlp.gate", bits=8),)))


def test_a_checkpoint_without_blocks_is_unsupported() -> None:
    tree = build_tree(LLAMA, table({"model.embed_tokens.weight": (160, 64)}))
    assert (tree.refusal, tree.blocks, tree.linears) == ("No decoder blocks were found in this checkpoint.", 0, ())


def test_an_empty_checkpoint_is_unsupported() -> None:
    assert build_tree({}, {}).refusal


@pytest.mark.parametrize(
    "config", [{"vocab_size": "many"}, {"text_config": 3}, {"architectures": "x"}, {"num_hidden_layers": [2]}]
)
def test_a_config_with_invalid_values_still_gives_a_tree(config: dict[str, Any]) -> None:
    tree = build_tree({**LLAMA, **config}, table(llama_table()))
    assert (tree.prefix, tree.embedding, tree.lm_head) == ("model.layers", "model.embed_tokens", "lm_head")


def test_a_nested_text_config_is_used() -> None:
    config = {"model_type": "outer", "text_config": {"model_type": "llama", "vocab_size": 160, "num_hidden_layers": 2}}
    tree = build_tree(config, table(llama_table(prefix="language_model.model")))
    assert (tree.model_type, tree.prefix, tree.refusal) == ("llama", "language_model.model.layers", "")


def test_more_blocks_than_the_limit_are_unsupported() -> None:
    shapes = llama_table(4097)
    assert "4,097 blocks" in build_tree(LLAMA | {"num_hidden_layers": 4097}, table(shapes)).refusal


def test_an_embedding_with_more_rows_than_the_head_is_found() -> None:
    """Llama 3.2 Vision has further rows for the image token, CPM-Ant for its prompts."""
    longer = llama_table() | {"model.embed_tokens.weight": (168, 64), "model.embed_positions.weight": (512, 64)}
    tree = build_tree(LLAMA, table(longer))
    assert (tree.embedding, tree.lm_head, tree.refusal) == ("model.embed_tokens", "lm_head", "")
    shorter = llama_table() | {"model.embed_tokens.weight": (152, 64)}
    assert "has 152 rows and the head 160" in build_tree(LLAMA, table(shorter)).refusal


def test_a_head_inside_a_module_is_not_the_embedding() -> None:
    """Reformer's `lm_head.decoder` is before the embedding in the checkpoint, and on no other level."""
    shapes: dict[str, tuple[int, ...]] = {
        "lm_head.decoder.weight": (160, 64),
        "reformer.embeddings.word_embeddings.weight": (160, 64),
    }
    blocks: dict[str, tuple[int, ...]] = {
        f"reformer.encoder.layers.{block}.query.weight": (64, 64) for block in range(2)
    }
    tree = build_tree(LLAMA, table(shapes | blocks))
    assert (tree.embedding, tree.lm_head) == ("reformer.embeddings.word_embeddings", "lm_head.decoder")


def test_the_tensors_of_a_block_are_cached() -> None:
    """A search for each of 20,000 blocks would take quadratic time."""
    tree = build_tree(LLAMA, table(llama_table()))
    assert tree.block_tensors(1) is tree.block_tensors(1)
    assert tree.block_tensors(1) == [name for name in tree.tensors if name.startswith("model.layers.1.")]
    assert tree.block_tensors(2) == []


def test_the_language_model_of_a_vision_model_is_found(tmp_path: Path) -> None:
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
              "image_size": 28, "patch_size": 14}  # fmt: skip
    config = transformers.Gemma3Config(text_config=dict(SMALL), vision_config=vision, mm_tokens_per_image=4)
    transformers.Gemma3ForConditionalGeneration(config).save_pretrained(tmp_path)
    tree = tree_of(tmp_path)
    assert (tree.refusal, tree.blocks, len(tree.of_block(0))) == ("", 3, 7)
    assert {tower.kind for tower in tree.towers} == {"vision", "projector"}


def test_the_language_model_of_a_multimodal_model_has_the_size_of_its_config() -> None:
    shapes = llama_table(prefix="thinker.model")
    shapes |= {f"talker.layers.{block}.mlp.up_proj.weight": (512, 128) for block in range(2)}
    shapes |= {f"codec.blocks.{block}.mlp.up_proj.weight": (256, 64) for block in range(5)}
    config = {**LLAMA, "text_config": {"num_hidden_layers": 2, "hidden_size": 64, "vocab_size": 160}}

    found = build_tree(config, table(shapes))

    assert (found.prefix, found.refusal) == ("thinker.model.layers", "")


def test_a_norm_of_each_head_is_not_a_layer() -> None:
    shapes = llama_table() | {f"model.layers.{block}.self_attn.k_norm.weight": (2, 32) for block in range(2)}

    assert not any("norm" in linear.name for linear in build_tree(LLAMA, table(shapes)).linears)


def test_an_encoder_decoder_of_transformers_is_unsupported(tmp_path: Path) -> None:
    config = transformers.T5Config(vocab_size=160, d_model=32, d_ff=32, d_kv=8, num_layers=2, num_heads=2)
    transformers.T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    assert "encoder-decoder" in tree_of(tmp_path).refusal


def untied() -> ModelTree:
    return build_tree(LLAMA, table(llama_table()))


def tied() -> ModelTree:
    shapes = llama_table()
    del shapes["lm_head.weight"]
    return build_tree(LLAMA, table(shapes))


def resolve(tree: ModelTree, **value: Any) -> dict[str, tuple[str, str, str]]:
    plans = resolve_schemes(tree, bitsmap.from_json({"version": 1, **value}, LayerScheme(4, 64)))
    return {plan.linear.name: (plan.scheme.label(), plan.why, plan.fallback) for plan in plans}


def test_the_default_applies_to_the_blocks_and_not_to_the_head() -> None:
    found = resolve(untied())
    assert found["model.layers.0.self_attn.q_proj"] == ("W4 g64 sym", "default", "")
    assert found["lm_head"][0] == "16 bit"


def test_a_group_size_that_does_not_divide_falls_back_with_a_reason() -> None:
    label, _, fallback = resolve(untied())["model.layers.0.mlp.down_proj"]
    assert label == "W4 g32 sym"
    assert "64 does not divide 96" in fallback


def test_an_untied_head_is_quantized_when_named() -> None:
    assert resolve(untied(), layers={"lm_head": {"bits": 8}})["lm_head"] == ("W8 g64 sym", "by hand", "")


def test_a_rule_that_matches_everything_excludes_the_head() -> None:
    found = resolve(untied(), rules=[{"match": "*", "bits": 2}])
    assert found["lm_head"][0] == "16 bit"
    assert found["model.layers.1.self_attn.q_proj"][1] == "rule 1  *"


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"rules": [{"match": "*.up_proj", "bits": 8}]}, r"\*\.up_proj"),
        ({"rules": [{"match": "lm_head", "bits": 8}]}, "lm_head"),
        ({"rules": [{"match": "*embed*", "bits": 8}]}, r"\*embed\*"),
        ({"layers": {"model.layers.9.self_attn.q_proj": {"bits": 8}}}, "layers.9"),
        ({"layers": {"model.layers.0.self_attn.q_proj.weight": {"bits": 8}}}, r"q_proj\.weight"),
    ],
)
def test_a_rule_without_a_match_is_reported(value: dict[str, Any], named: str) -> None:
    with pytest.raises(BadInput, match=named):
        resolve(untied(), **value)


def test_the_embedding_cannot_be_quantized_by_name() -> None:
    with pytest.raises(BadInput, match="token embedding"):
        resolve(untied(), layers={"model.embed_tokens": {"bits": 8}})


def test_the_hint_for_a_tied_embedding_names_the_head() -> None:
    with pytest.raises(BadInput, match="chosen by name") as caught:
        resolve(tied(), layers={"model.embed_tokens": {"bits": 8}})
    assert "lm_head" in caught.value.hint


def test_an_embedding_listed_with_16_bits_is_not_a_layer() -> None:
    with pytest.raises(BadInput, match="no layer matches"):
        resolve(tied(), layers={"model.embed_tokens": {"bits": 16}})


def test_a_tied_head_is_a_layer_only_if_the_map_lists_it() -> None:
    assert "lm_head" not in resolve(tied())
    assert "lm_head" not in resolve(tied(), rules=[{"match": "*", "bits": 2}])
    assert resolve(tied(), layers={"lm_head": {"bits": 8}})["lm_head"][0] == "W8 g64 sym"


def test_the_plan_of_a_tied_head_has_its_effect_on_the_file() -> None:
    # 49152 x 576 weights take 2 bytes each before, and 1 + 3/64 with a scale and a zero point for each group of 64.
    why = resolve(paper_model.llama(2), layers={"lm_head": {"bits": 8}})["lm_head"][1]
    assert why == (
        "by hand: a separate 8-bit copy, the embedding is unchanged; the file grows by 29.6 MB, "
        "the output projection reads 52 % of the bytes for each token"
    )


def test_nameable_gives_a_plan_to_a_tied_head_as_well() -> None:
    plans = resolve_schemes(tied(), BitsMap(LayerScheme(4, 64)), nameable=True)
    assert [plan.linear for plan in plans] == list(tied().nameable)
    assert (plans[-1].scheme.quantized, plans[-1].why) == (
        False,
        "embeddings and lm_head stay, unless named: shares the weight of the embedding",
    )


def test_a_tied_head_listed_with_16_bits_shares_the_embedding() -> None:
    assert resolve(tied(), layers={"lm_head": {"bits": 16}})["lm_head"][:2] == (
        "16 bit",
        "by hand: shares the weight of the embedding",
    )


def test_nameable_layers_include_a_tied_head() -> None:
    assert [linear.name for linear in tied().nameable] == [*tied().block_linears, "lm_head"]
    assert untied().nameable == untied().linears
    assert untied().tied_head is None


SEEING = paper_model.seeing(2)
IN_TOWERS = ["model.vision_tower.encoder.layers.0.mlp.fc1", "model.multi_modal_projector.linear"]


def bits_in_towers(bits_map: BitsMap) -> list[int]:
    return [plan.scheme.bits for plan in resolve_schemes(SEEING, bits_map) if plan.linear.block == TOWER]


def test_linear_layers_of_towers_are_the_last_ones_and_stay_in_16_bits() -> None:
    assert [linear.name for linear in SEEING.linears if linear.block == TOWER] == IN_TOWERS
    assert [linear.name for linear in SEEING.linears][-2:] == IN_TOWERS
    assert bits_in_towers(BitsMap(LayerScheme(4))) == [16, 16]


def test_rules_do_not_apply_to_towers() -> None:
    assert bits_in_towers(BitsMap(LayerScheme(4), (Rule("*", bits=8),))) == [16, 16]


def test_bits_of_towers_do_not_apply_to_layers_set_by_hand() -> None:
    by_hand = BitsMap(LayerScheme(2), layers=(Rule(IN_TOWERS[0], bits=16),), towers=8)
    assert bits_in_towers(by_hand) == [16, 8]


def test_a_layer_of_a_tower_has_4_or_8_bits() -> None:
    with pytest.raises(BadInput, match=r"mlp\.fc1 is in a tower, whose layers can have 4 or 8 bits, not 3"):
        resolve_schemes(SEEING, BitsMap(layers=(Rule(IN_TOWERS[0], bits=3),)))
