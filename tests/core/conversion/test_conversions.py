"""Conversion options from headers: verdicts, their reasons, and predicted sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from core.control import never
from core.conversion.conversions import ConversionOption, conversions, kind_of, look_at, plan_subject
from core.conversion.convert import convert, survey
from core.errors import BadInput
from core.events import Done, Event
from core.formats.names import AUTO_ROUND, AWQ, FORMATS, GGUF, GPTQ, PLAIN
from core.formats.opened import open_checkpoint
from core.schemes import LayerScheme
from tests.core.conversion.sources import make, same_weights, save_original

FOUR, FOUR_ASYM = LayerScheme(4, 32), LayerScheme(4, 32, sym=False)
Rows = dict[str, ConversionOption]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITWRIGHT_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_original(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def rows(original: Path, tmp_path: Path) -> Callable[..., Rows]:
    """Return a function that gives the options of a source of some format and scheme."""

    def of(name: str, scheme: LayerScheme = FOUR, *, act_order: bool = False) -> Rows:
        folder = make(original, tmp_path / "source", name, scheme, act_order=act_order)
        return {row.format: row for row in conversions(look_at(open_checkpoint(folder), "tiny"))}

    return of


def verdicts(rows: Rows, names: tuple[str, ...]) -> set[str]:
    return {rows[name].verdict for name in names}


def test_every_format_has_an_option(rows: Callable[..., Rows]) -> None:
    assert tuple(rows("auto_round")) == (*FORMATS, *PLAIN)


def test_four_symmetric_bits_convert_exactly_to_every_integer_format(rows: Callable[..., Rows]) -> None:
    found = rows("auto_gptq")
    assert verdicts(found, (*AUTO_ROUND, *GPTQ, *AWQ, "gguf", "f32")) == {"exact"}
    assert verdicts(found, (*GGUF[1:], "bf16", "f16")) == {"inexact"}
    assert all(row.reason for row in found.values() if row.verdict != "exact")


def test_predicted_sizes_match_the_output(original: Path, tmp_path: Path) -> None:
    source = make(original, tmp_path / "source", "auto_round", FOUR)
    promised = {row.format: row.nbytes for row in conversions(look_at(open_checkpoint(source), "tiny"))}
    for name in ("auto_gptq", "gguf", "f32"):
        convert(str(source), tmp_path / name, name, lambda _event: None, never)
        files = [path for path in (tmp_path / name).iterdir() if path.suffix in (".safetensors", ".gguf")]
        assert sum(path.stat().st_size for path in files) == pytest.approx(promised[name], abs=10_000)


@pytest.mark.parametrize(
    ("scheme", "digits"),
    [
        (LayerScheme(2, 32), 11),
        (LayerScheme(3, 32), 13),
        (LayerScheme(4, 32), 14),
        (LayerScheme(8, 32), 18),
        (LayerScheme(2, 32, sym=False), 13),
        (LayerScheme(8, 32, sym=False), 19),
    ],
)
def test_the_reason_has_the_significant_bits_of_the_scheme(
    rows: Callable[..., Rows], scheme: LayerScheme, digits: int
) -> None:
    assert f"up to {digits} significant bits" in rows("auto_round", scheme)["bf16"].reason


def test_two_symmetric_bits_convert_exactly_to_half_precision(original: Path, tmp_path: Path) -> None:
    # -2, -1, 0 and 1 times a float16 is a float16; only the tensors in BF16 may change
    source = make(original, tmp_path / "source", "auto_round", LayerScheme(2, 32))
    found = plan_subject(look_at(open_checkpoint(source), "tiny"), "f16")
    assert "significant" not in found.cost
    events: list[Event] = []
    convert(str(source), tmp_path / "out", "f16", events.append, never, inexact=True)
    assert isinstance(events[-1], Done)
    assert events[-1].report["exact"] == same_weights(source, tmp_path / "out")


def test_asymmetric_eight_bits_have_no_gguf_type(rows: Callable[..., Rows]) -> None:
    found = rows("auto_round", LayerScheme(8, 32, sym=False))["gguf"]
    assert (found.verdict, "rounded to Q8_0" in found.reason) == ("inexact", True)


def test_the_size_of_an_exact_gguf_type_is_reported(rows: Callable[..., Rows]) -> None:
    found = rows("auto_round", LayerScheme(2, 32))["gguf"]
    assert found.verdict == "exact"
    assert "4.5 bits per weight" in found.reason


def test_groups_in_an_order_of_their_own(rows: Callable[..., Rows]) -> None:
    found = rows("auto_gptq", FOUR, act_order=True)
    assert verdicts(found, (*GPTQ, "f32")) == {"exact"}
    assert verdicts(found, (*AUTO_ROUND, *AWQ, "gguf")) == {"no"}
    assert verdicts(found, GGUF[1:]) == {"inexact"}
    assert "act-order" in found["auto_round"].reason


def test_an_unquantized_model_converts_to_floats_and_gguf(original: Path) -> None:
    subject = look_at(open_checkpoint(original), "tiny")
    found = {row.format: row for row in conversions(subject)}
    assert kind_of(subject.checkpoint) == "BF16"
    assert verdicts(found, (*AUTO_ROUND, *GPTQ, *AWQ)) == {"no"}
    assert verdicts(found, ("gguf", "bf16", "f32")) == {"exact"}
    assert verdicts(found, (*GGUF[1:], "f16")) == {"inexact"}
    assert "not quantized" in found["auto_round"].reason


@pytest.mark.parametrize(("name", "verdict"), [("gguf:q4_0", "exact"), ("gguf:q8_0", "exact"), ("gguf:q4_1", "no")])
def test_only_equivalent_gguf_types_convert_to_integer_formats(
    rows: Callable[..., Rows], name: str, verdict: str
) -> None:
    found = rows(name)
    assert verdicts(found, (*AUTO_ROUND[:2], *GPTQ)) == {verdict}
    assert found["f32"].verdict == "exact"


@pytest.mark.parametrize(
    ("name", "kind"), [("auto_round", "AutoRound"), ("auto_gptq", "GPTQ"), ("auto_awq", "AWQ"), ("gguf", "GGUF")]
)
def test_a_survey_describes_the_source(original: Path, tmp_path: Path, name: str, kind: str) -> None:
    folder = make(original, tmp_path / "source", name, FOUR)
    source = survey(str(folder), lambda _event: None, never).source
    assert (source.kind, source.linears) == (kind, 14)
    assert sum(source.layers.values()) == 14
    assert source.nbytes > 10_000


def test_the_reason_names_the_layer_that_prevents_a_conversion(rows: Callable[..., Rows], original: Path) -> None:
    found = rows("gguf:q4_1")["auto_round"]
    assert "model.layers.0.mlp.down_proj (and 13 more) is in Q4_1" in found.reason


def test_an_unknown_format_is_rejected(original: Path) -> None:
    with pytest.raises(BadInput, match="Unknown output format 'ggml'"):
        plan_subject(look_at(open_checkpoint(original), "tiny"), "ggml")
