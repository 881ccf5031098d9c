"""How long the Layers page takes at 20,000 layers: open, select all, set bits, undo, filter, repaint. Run by hand:

    python3 packaging/bootstrap.py exec --extra test env PYTHONPATH=. python tests/benchmarks/map_speed.py

Each step includes everything that follows from it on the page: plans, sizes, costs, map, table, panel, one repaint.
Prints milliseconds: the median and the worst of several rounds.
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

from app.calls import Calls
from app.context import Context
from app.draft import Draft, OpenedModel
from app.pages.layers.page import LayersPage
from app.runs import Runs
from app.state import State
from app.theme import Theme
from core.bitsmap import BitsMap
from core.model.tree import ModelTree
from core.schemes import LayerScheme
from tests.core.paper_model import llama

PLAIN = BitsMap(LayerScheme(4, 64))
PART = {"w1": (64, 64), "w2": (64, 64), "w3": (64, 64)}
ATTENTION = {f"self_attn.{kind}_proj": (64, 64) for kind in "qkvo"}


def trees() -> dict[str, ModelTree]:
    """20,000 layers as one would never see them, and as a mixture of experts has them."""
    parts = {f"mlp.parts.{number}.{kind}": shape for number in range(128) for kind, shape in PART.items()}
    return {"2,858 blocks of 7": llama(2858), "52 blocks of 388": llama(52, shapes={**ATTENTION, **parts})}


def measured(page: LayersPage, step: Callable[[], object]) -> float:
    """Milliseconds of a step with the repaint that follows."""
    began = time.perf_counter()
    step()
    QApplication.sendPostedEvents()
    QApplication.processEvents()
    return 1000 * (time.perf_counter() - began)


def round_of(page: LayersPage, opened: OpenedModel, bits: int) -> dict[str, float]:
    """Every step once, the page as it was at the end."""
    draft, field = page.context.draft, page.body.filter.field
    return {
        "close": measured(page, lambda: draft.choose(model=None, bits_map=PLAIN)),
        "open": measured(page, lambda: draft.choose(model=opened)),
        "select all": measured(page, page.select_all),
        "set bits": measured(page, lambda: page.set_keys(bits=bits)),
        "set group": measured(page, lambda: page.set_keys(group_size=32)),
        "undo": measured(page, draft.undo_stack.undo),
        "redo": measured(page, draft.undo_stack.redo),
        "filter": measured(page, lambda: field.setText("q_proj")),
        "filter, expression": measured(page, lambda: field.setText(r"/\.[0-9]*[02468]\./")),
        "select matches": measured(page, page.select_matches),
        "set their bits": measured(page, lambda: page.set_keys(bits=8)),
        "no filter": measured(page, field.clear),
        "sort": measured(page, lambda: page.table_model.sort(3)),
        "zoom out": measured(page, lambda: page.body.map.set_zoom(0.2)),
        "zoom in": measured(page, lambda: page.body.map.set_zoom(1.0)),
        "colour by size": measured(page, lambda: page.body.colour_by.button("size").click()),
        "colour by bits": measured(page, lambda: page.body.colour_by.button("bits").click()),
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
            report=lambda error, _remedy: print(error), say=lambda _text: None, go=lambda _page: None,
        )  # fmt: skip
        page = LayersPage(context)
        page.resize(width, 950)
        page.show()
        for name, tree in trees().items():
            opened = OpenedModel(name, name, "folder", "", "", tree.prepared())
            found = [round_of(page, opened, (2, 3, 8)[number % 3]) for number in range(rounds)]
            print(f"{name}: {len(tree.linears):,} layers, page {page.width()} x {page.height()}")
            for step in found[0]:
                times = [one[step] for one in found]
                print(f"  {step:20}{statistics.median(times):8.1f}{max(times):8.1f} ms")
        page.close()
    application.quit()


if __name__ == "__main__":
    main()
