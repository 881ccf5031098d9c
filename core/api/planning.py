"""Planning of a bits map for a budget: measure the sensitivity of each layer, then allocate bits.

Combines `core.sensitivity` and `core.allocation`, and checks the request before the measurement. Torch and numpy are
imported when a call needs them.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.allocation.request import AllocationRequest, Budget, parse_size
from core.api.inspection import read_headers
from core.bitsmap import Rule
from core.calibration import text as texts
from core.control import ShouldStop, never
from core.errors import BadInput, Cancelled, OutputProblem, UnsupportedModel
from core.estimation import preflight
from core.estimation.sizes import layer_bytes
from core.events import Emit, ignore_event
from core.files import expanded
from core.formats import engines
from core.formats.engines import EngineIssue
from core.model.fused import FusedModules
from core.model.plans import Plans
from core.model.tree import ModelTree, resolve_schemes
from core.model_id import absolute
from core.schemes import UNTOUCHED, LayerScheme
from core.sensitivity.spec import DEFAULT, AnalysisSpec
from core.sensitivity.table import SensitivityTable
from core.spec import FORMATS

if TYPE_CHECKING:
    from core.allocation.problem import Allocation

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class MapPlan:
    """The result of planning a bits map.

    Attributes:
        model: The model argument.
        tree: The layers of the model.
        request: The budget and the constraints.
        table: The measured sensitivity table.
        allocation: The bits map with its size and predicted loss increase.
        plans: The scheme of each layer.
        engine_issues: Unsupported and slow layers of the requested engine; empty without one.
    """

    model: str
    tree: ModelTree
    request: AllocationRequest
    table: SensitivityTable
    allocation: Allocation
    plans: Plans
    engine_issues: Sequence[EngineIssue] = field(default=())

    def shares(self) -> list[Share]:
        """Return the share of each scheme in the model, the fewest bits first."""
        tree, format_name = self.tree, self.request.format_name
        layers: Counter[LayerScheme] = Counter()
        size: Counter[LayerScheme] = Counter()
        loss_increase: defaultdict[LayerScheme, float] = defaultdict(float)
        for plan in self.plans:
            linear, scheme = plan.linear, plan.scheme if plan.scheme.quantized else LayerScheme(UNTOUCHED)
            stored = tree.stored_bytes(linear)
            layers[scheme] += 1
            size[scheme] += layer_bytes(linear.in_features, linear.out_features, scheme, format_name, stored)
            loss_increase[scheme] += self.table.of(linear.name, scheme) or 0.0
        ordered = sorted(layers, key=lambda scheme: (scheme.bits, scheme.group_size, scheme.sym))
        return [Share(scheme, layers[scheme], size[scheme], loss_increase[scheme]) for scheme in ordered]

    def to_json(self) -> dict[str, Any]:
        found = self.allocation
        return {
            "model": self.model,
            "bits_map": found.bits_map.to_json(),
            "measure": self.table.measure,
            "predicted_loss_increase": found.loss_increase,
            "loss_increase_bound": found.bound,
            "optimal": found.exact,
            "output_bytes": found.size.total,
            "source_bytes": found.size.source,
            "bits_per_weight": found.bits,
            "notes": list(found.notes),
            "schemes": [
                {
                    **share.scheme.to_json(),
                    "layers": share.layers,
                    "bytes": share.size,
                    "predicted_loss_increase": share.loss_increase,
                }
                for share in self.shares()
            ],
            "engine": self.request.engine,
            "engine_issues": [
                {"layer": issue.layer, "severity": issue.severity, "reason": issue.reason}
                for issue in self.engine_issues
            ],
        }


@dataclass(frozen=True)
class Share:
    """The layers of one scheme: how many, their bytes in the output, and their predicted loss increase."""

    scheme: LayerScheme
    layers: int
    size: int
    loss_increase: float


def plan(
    model: PathLike,
    *,
    bpw: float | None = None,
    size: int | str | None = None,
    ram: int | str | None = None,
    choices: Sequence[int] = (2, 3, 4, 8),
    pins: Iterable[str | Rule] = (),
    min_bits: Iterable[str | Rule] = (),
    engine: str = "",
    fused: FusedModules = FusedModules(),  # noqa: B008 - frozen
    measure: str = DEFAULT,
    group_size: int = 128,
    sym: bool = True,
    format: str = "auto_round",
    calibration: PathLike = "builtin",
    samples: int = 16,
    seqlen: int = 256,
    seed: int = 42,
    device: str = "auto",
    output: PathLike | None = None,
    emit: Emit | None = None,
    should_stop: ShouldStop = never,
) -> MapPlan:
    """Return the bits map with the lowest predicted loss increase within a budget.

    The sensitivity is measured first, unless the same measurement is cached.

    Args:
        bpw, size, ram: The budget; exactly one is required. Average bits per weight with scales and zero points; bytes
            of the output; or bytes of memory to run the output. Bytes are numbers or text such as `110MB`.
        choices: Bits to choose from; 16 means that a layer may stay unquantized.
        pins: `PATTERN=BITS` or rules whose keys are fixed. The last match wins; the output layer matches by exact name
            only.
        min_bits: `PATTERN=BITS` or rules with the minimum bits of the layers that match.
        engine: Name of a target engine of `core.formats.engines`. Only schemes that it supports are chosen.
        fused: The kinds of layers that share a scheme.
        measure: Name of a sensitivity measure of `core.sensitivity.spec`.
        calibration, samples, seqlen, seed, device: Settings of the measurement.
        output: JSON file to write the bits map to; it must not exist.

    Raises:
        BitwrightError: The input is bad or the budget too small, which is checked before the measurement; or the
            measurement failed. `Cancelled` after a stop.
    """
    request = AllocationRequest(
        _budget(bpw, size, ram), tuple(choices), _rules(pins), _rules(min_bits), fused, engine, format, group_size, sym
    )
    spec = AnalysisSpec(
        absolute(model), _candidates(request), measure, absolute(calibration), samples, seqlen, seed, device
    )
    target = None if output is None else _writable(expanded(output).absolute())
    found = _choose(spec, request, emit or ignore_event, should_stop)
    if target is not None:
        _save(found.allocation, target)
    return found


def _choose(spec: AnalysisSpec, request: AllocationRequest, emit: Emit, should_stop: ShouldStop) -> MapPlan:
    """Check the request, measure the sensitivity and allocate the bits."""
    engine, form = request.engine, request.format_name
    if engine:
        engines.title(engine)
    if form not in FORMATS:
        raise BadInput(f"Unknown output format {form!r}.", f"Choose from {', '.join(FORMATS)}.")
    preflight.check_model(spec.model)
    texts.check(spec.calibration)
    tree = _tree(spec.model, emit, should_stop)

    from core.allocation.problem import allocate

    # an impossible request is refused before the measurement, which may take minutes
    none = tuple((0.0,) * len(spec.schemes) for _ in tree.block_linears)
    allocate(tree, SensitivityTable(spec.measure, tree.block_linears, spec.schemes, none), request)

    from core.sensitivity.analyse import analyse

    table = analyse(spec, emit, should_stop)
    if should_stop():
        raise Cancelled("Stopped.")
    found = allocate(tree, table, request)
    plans = resolve_schemes(tree, found.bits_map)
    engine_issues = engines.check(engine, tree, plans, form) if engine else []
    return MapPlan(spec.model, tree, request, table, found, plans, engine_issues)


def parse_rule(text: str) -> Rule:
    """Parse `PATTERN=BITS` to a rule.

    Raises:
        BadInput: The text has another form.
    """
    pattern, equals, bits = text.rpartition("=")
    if not equals or not pattern or not (bits.isascii() and bits.isdigit()):
        raise BadInput(f"{text!r} is not PATTERN=BITS.", "Write it for example as '*.down_proj=8'.")
    return Rule(pattern, bits=int(bits))


def _rules(given: Iterable[str | Rule]) -> tuple[Rule, ...]:
    return tuple(parse_rule(one) if isinstance(one, str) else one for one in given)


def _budget(bpw: float | None, size: int | str | None, ram: int | str | None) -> Budget:
    given = [value for value in (bpw, size, ram) if value is not None]
    if len(given) != 1:
        raise BadInput("Exactly one budget is required.", "Give one of --bpw 3.5, --size 110MB and --ram 4GB.")
    if bpw is not None:
        return Budget("bpw", bpw)
    value = size if size is not None else ram
    number = parse_size(value) if isinstance(value, str) else value
    assert number is not None
    return Budget("bytes" if size is not None else "ram", number)


def _candidates(request: AllocationRequest) -> tuple[LayerScheme, ...]:
    """Return all schemes that the allocation may use: the choices, and the combinations of pins and choices."""
    found = dict.fromkeys(scheme for scheme in request.schemes() if scheme.quantized)
    for pin in request.pins:
        found |= dict.fromkeys(
            fixed for fixed in (pin.apply(scheme) for scheme in request.schemes()) if fixed.quantized
        )
    if not found:
        raise BadInput("All layers would stay in 16 bits.", "Give some of 2, 3, 4 and 8 as choices.")
    return tuple(found)


def _tree(name: str, emit: Emit, should_stop: ShouldStop) -> ModelTree:
    _source, tree = read_headers(name, emit, should_stop)
    if tree.refusal:
        raise UnsupportedModel(tree.refusal, "`bitwright inspect` shows the layers of the model.")
    return tree


def _writable(path: Path) -> Path:
    """Return `path` if a new file can be written there. An existing file is not overwritten."""
    if os.path.lexists(path) and not path.is_dir():
        raise OutputProblem(f"{path} already exists and is not overwritten.", "Choose another name for the map.")
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        reason = "it is a folder" if path.is_dir() else "its folder does not exist or is not writable"
        raise OutputProblem(f"{path} cannot be written: {reason}.", "Choose another name for the map.")
    return path


def _save(found: Allocation, path: Path) -> None:
    try:
        found.bits_map.save(path)
    except OSError as error:
        raise OutputProblem(f"{path} cannot be written: {error.strerror}.", "Choose another name.") from error
