"""Speed of the Layers page with 20,000 layers: open, select all, set bits, undo, filter, fold, paint. Run manually:

    python3 packaging/bootstrap.py exec --extra test env PYTHONPATH=. python tests/benchmarks/map_speed.py

Each step includes all resulting updates of the page: plans, sizes, costs, map, tree, panel, one repaint. Prints the
median and the maximum of several rounds in milliseconds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtWidgets import QApplication

from app.pages.layers.layer_grid import make_grid
from app.pages.layers.page import LayersPage
from app.shared.calls.calls import Calls
from app.shared.context import Context
from app.shared.draft import Draft
from app.shared.models.opened import OpenedModel
from app.shared.run.runs import Runs
from app.state import State
from app.theme import Theme
from core.bitsmap import BitsMap
from core.model.tree import ModelTree
from core.schemes import BITS, LayerScheme
from core.sensitivity.spec import DEFAULT
from core.sensitivity.table import SensitivityTable
from tests.app.pages.layers.experts import mixture
from tests.core.paper_model import llama

PLAIN = BitsMap(LayerScheme(4, 64))
GATE = "mlp.experts.*.gate_proj"


def trees() -> dict[str, ModelTree]:
    """Return trees with 20,000 layers: an artificial one, and one like a mixture of experts."""
    return {"2,858 blocks of 7": llama(2858), "48 blocks with 128 experts": mixture(48, 128)}


def loss_increase(tree: ModelTree) -> SensitivityTable:
    """Return a table of loss increases over a wide range."""
    schemes = tuple(LayerScheme(bits, 64) for bits in BITS)
    rows = (10.0 ** -(number % 7) / (1 + number) for number, _ in enumerate(tree.linears))
    values = tuple(tuple(row / 4**column for column in range(len(schemes))) for row in rows)
    return SensitivityTable(DEFAULT, tuple(linear.name for linear in tree.linears), schemes, values)


def measured(page: LayersPage, step: Callable[[], object]) -> float:
    """Return the milliseconds of a step and the following repaint."""
    began = time.perf_counter()
    step()
    QApplication.sendPostedEvents()
    QApplication.processEvents()
    return 1000 * (time.perf_counter() - began)


def round_of(page: LayersPage, opened: OpenedModel, bits: int) -> dict[str, float]:
    """Run every step once and restore the page."""
    draft, field, body = page.context.draft, page.body.filter.field, page.body
    rows, cell = body.table, make_grid(opened.tree).layers_at(1, 6)
    steps: dict[str, Callable[[], object]] = {
        "close": lambda: draft.choose(model=None, bits_map=PLAIN),
        "open": lambda: draft.choose(model=opened),
        "select all": page.select_all,
        "set bits": lambda: page.set_keys(bits=bits),
        "set group": lambda: page.set_keys(group_size=32),
        "undo": draft.undo_stack.undo,
        "redo": draft.undo_stack.redo,
        "filter": lambda: field.setText("q_proj"),
        "filter, expression": lambda: field.setText(r"/\.[0-9]*[02468]\./"),
        "select matches": page.select_matches,
        "set their bits": lambda: page.set_keys(bits=8),
        "no filter": field.clear,
        "open a block": lambda: rows.expand(rows.model().index(1, 0)),
        "go to another": lambda: page.selection.set_current(len(opened.tree.linears) // 2),
        "select a cell": lambda: page.selection.select(cell),
        "set bits of a cell": lambda: page.set_keys(bits=bits),
        "undo that": draft.undo_stack.undo,
        "zoom out": lambda: body.map.set_zoom(0.2),
        "zoom in": lambda: body.map.set_zoom(1.0),
        "color by size": lambda: body.color_by.button("size").click(),
        "color by bits": lambda: body.color_by.button("bits").click(),
    }
    if opened.tree.linears[0].kind.startswith("mlp.experts"):
        steps |= {
            "unfold experts": lambda: body.map.fold_wanted.emit(GATE),
            "select all, unfolded": page.select_all,
            "set bits, unfolded": lambda: page.set_keys(bits=bits),
            "fold experts": lambda: body.map.fold_wanted.emit(GATE),
        }
    return {name: measured(page, step) for name, step in steps.items()}


def measured_round(page: LayersPage, opened: OpenedModel, bits: int) -> dict[str, float]:
    """Run the edits with a table of loss increases, an engine with restrictions, and colors by sensitivity."""
    draft = page.context.draft
    spec, table = draft.analysis(), loss_increase(opened.tree)
    return {
        "loss increase known": measured(page, lambda: draft.set_sensitivity(spec, table)),
        "engine chosen": measured(page, lambda: draft.set_engine("gptqmodel")),
        "by sensitivity": measured(page, lambda: page.body.color_by.button("sensitivity").click()),
        "all, with loss increase": measured(page, page.select_all),
        "bits, with loss increase": measured(page, lambda: page.set_keys(bits=3)),
        "undo, with loss increase": measured(page, draft.undo_stack.undo),
        "no engine": measured(page, lambda: draft.set_engine("")),
        "back to bits": measured(page, lambda: page.body.color_by.button("bits").click()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=int, default=1700)
    rounds, width = vars(parser.parse_args()).values()
    application = QApplication([])
    with tempfile.TemporaryDirectory() as folder:
        context = Context(
            draft=Draft(), calls=Calls(), runs=Runs(), state=State(Path(folder) / "window.ini"), theme=Theme(),
            report=lambda error, _remedy: print(error), show_message=lambda _text: None, go=lambda _page: None,
        )  # fmt: skip
        page = LayersPage(context)
        page.resize(width, 950)
        page.show()
        for name, tree in trees().items():
            opened = OpenedModel(name, name, "folder", "", "", tree).prepared()
            found = []
            for number in range(rounds):
                bits = (2, 3, 8)[number % 3]
                found.append({**round_of(page, opened, bits), **measured_round(page, opened, bits)})
            print(f"{name}: {len(tree.linears):,} layers, page {page.width()} x {page.height()}")
            for step in found[0]:
                times = [one[step] for one in found]
                print(f"  {step:20}{statistics.median(times):8.1f}{max(times):8.1f} ms")
        page.close()
    application.quit()


if __name__ == "__main__":
    main()
