"""Create the pictures of the user guide from the real window, with the demo model and a real run. Run manually:

    python3 packaging/bootstrap.py exec python packaging/guide_pictures.py [FOLDER] [--vision MODEL]

With --vision, only the picture of a chat with pictures is taken; MODEL is the one that
`python -m tests.benchmarks.vision_model train` writes, or an output of it. All others take about ten minutes on two
cores because a model is quantized. Needs no display (uses Qt's offscreen platform) and does not change the user's data:
jobs and settings are stored in a temporary folder.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "resources" / "guide" / "pictures"
SIZE = (1100, 740)
POLL_MS = 100
SETTLE_MS = 1500
DEVICES_KEYS = "Ctrl+Shift+D"
QUESTION = "What is the capital of France?"

if __name__ == "__main__":
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    sys.path.insert(0, str(ROOT))

from PySide6.QtCore import QElapsedTimer, QTimer  # noqa: E402 - the platform is chosen above
from PySide6.QtGui import QKeySequence  # noqa: E402
from PySide6.QtWidgets import QApplication  # noqa: E402

from app import application  # noqa: E402
from app.frame.main_window import MainWindow  # noqa: E402
from app.pages.chat.comparison.view import ComparisonView  # noqa: E402
from app.pages.chat.page import ChatPage  # noqa: E402
from app.pages.chat.session import ChatSession  # noqa: E402
from app.pages.chat.top_bar import ONE, TWO  # noqa: E402
from app.pages.convert.page import ConvertPage  # noqa: E402
from app.pages.layers.page import LayersPage  # noqa: E402
from app.pages.run.curve_pane import END_TO_END, LOSS, START, CurvePane  # noqa: E402
from core import recipes  # noqa: E402
from core.bitsmap import BitsMap, Rule, find  # noqa: E402
from core.schemes import LayerScheme  # noqa: E402

Condition = Callable[[], bool]
Shoot = Callable[[str, str], Iterator[Condition]]


def story(window: MainWindow, folder: Path) -> Iterator[Condition]:
    """Take all pictures in the order of the workflow; each `yield` waits until the yielded condition is true."""

    def shoot(name: str, page: str) -> Iterator[Condition]:
        window.go(page)
        settled = QElapsedTimer()
        settled.start()
        yield lambda: settled.hasExpired(SETTLE_MS)
        window.grab().save(str(folder / f"{name}.png"))

    yield lambda: window.context is not None and len(window.stack.pages) == 6
    context = window.context
    assert context is not None
    yield from shoot("welcome", "model")
    window.open_words("demo")
    yield lambda: context.draft.model is not None and context.draft.machine.chosen != ""
    yield from shoot("model", "model")
    yield from shoot("recipe", "recipe")
    _paint_some_bits(window)
    yield from shoot("layers", "layers")
    layers = window.stack.pages["layers"]
    assert isinstance(layers, LayersPage)
    layers.body.side.show_view("budget")
    layers.budget.measure()
    panel = layers.body.side.budget
    yield lambda: context.draft.sensitivity is not None and panel.allocate.isEnabled()
    panel.amount.set_value(3.5)
    layers.budget.allocate()
    yield from shoot("budget", "layers")
    while context.draft.undo_stack.canUndo():
        context.draft.undo_stack.undo()
    yield from _run(window, shoot)
    window.do_primary()
    chat = window.stack.pages["chat"]
    assert isinstance(chat, ChatPage)
    answers: list[object] = []
    session = chat.findChild(ChatSession)
    assert session is not None
    session.answered.connect(answers.append)
    chat.send(QUESTION)
    yield lambda: bool(answers)
    yield from shoot("chat", "chat")
    record = context.runs.record
    assert record is not None
    assert record.spec is not None
    yield from _two_models(window, chat, record.spec.output, shoot)
    convert = window.stack.pages["convert"]
    assert isinstance(convert, ConvertPage)
    convert.open_model(record.spec.output)
    yield lambda: convert.conversion.state == "ready"
    yield from shoot("convert", "convert")
    yield from _experts(window, folder, shoot)


def _run(window: MainWindow, shoot: Shoot) -> Iterator[Condition]:
    """Take the pictures of a run in its three views, and of its report."""
    assert window.context is not None
    draft, runs = window.context.draft, window.context.runs
    runs.start(replace(draft.spec(), recipe=recipes.load("light")))
    yield lambda: _block(window) >= 1 and _steps(window) >= 35
    yield from shoot("run", "run")
    pane = window.stack.pages["run"].findChild(CurvePane)
    assert isinstance(pane, CurvePane)
    pane.views.button(START).click()
    yield from shoot("start", "run")
    pane.views.button(LOSS).click()
    yield lambda: _end_to_end_steps(window) >= 15
    pane.views.button(END_TO_END).click()
    yield from shoot("end-to-end", "run")
    yield lambda: not runs.active
    yield from shoot("report", "run")


def _experts(window: MainWindow, folder: Path, shoot: Shoot) -> Iterator[Condition]:
    """Take the picture of the map of a mixture of experts, whose files contain no weights."""
    from tests.benchmarks.huge_mixture import write

    assert window.context is not None
    draft = window.context.draft
    with tempfile.TemporaryDirectory() as made:
        model = Path(made) / "mixture-of-experts"
        model.mkdir()
        write(model, fused=True, blocks=24)
        window.open_words(str(model))
        yield lambda: draft.model is not None and draft.model.label == model.name
        rules = (
            Rule("*.mlp.experts.*.down_proj", bits=3),
            Rule("model.layers.0.mlp.experts.*", bits=8),
            Rule("/layers.[2-5].mlp.experts.[0-9].up_proj/", bits=8),
        )
        draft.edit_map(BitsMap(LayerScheme(4, 64), rules), "example")
        layers = window.stack.pages["layers"]
        assert isinstance(layers, LayersPage)
        layers.body.side.show_view("layers")
        assert draft.model is not None
        names = [linear.name for linear in draft.model.tree.linears]
        layers.selection.select(find(names, "model.layers.7.mlp.experts.*.gate_proj"))
        yield from shoot("experts", "layers")


def _two_models(window: MainWindow, chat: ChatPage, made: str, shoot: Shoot) -> Iterator[Condition]:
    """Take the pictures of the comparison of the demo model with the output, and of the devices."""
    assert window.context is not None
    draft = window.context.draft
    chat.show_mode(TWO)
    comparison = chat.findChild(ComparisonView)
    assert comparison is not None
    comparison.open_pair("demo", made)
    done: list[object] = []
    comparison.session.finished.connect(lambda: done.append(True))
    comparison.ask(QUESTION)
    yield lambda: bool(done)
    yield from shoot("comparison", "chat")
    yield lambda: bool(draft.machine.backends)
    _press(window, DEVICES_KEYS)
    yield from shoot("devices", "chat")
    _press(window, DEVICES_KEYS)  # closes the sheet
    chat.show_mode(ONE)


def vision_story(window: MainWindow, folder: Path, model: str) -> Iterator[Condition]:
    """Take the picture of a chat about two pictures with digits."""
    from tests.benchmarks.vision_model import QUESTION as ABOUT_DIGITS
    from tests.benchmarks.vision_model import draw

    yield lambda: window.context is not None and len(window.stack.pages) == 6
    window.go("chat")
    chat = window.stack.pages["chat"]
    assert isinstance(chat, ChatPage)
    chat.open_model(model)
    answers: list[object] = []
    session = chat.findChild(ChatSession)
    assert session is not None
    session.answered.connect(answers.append)
    with tempfile.TemporaryDirectory() as made:
        paths = [Path(made) / f"digits-{number}.png" for number in (1, 2)]
        for seed, path in zip((7, 8), paths, strict=True):
            draw(seed)[0].save(path)
            asked = len(answers)
            chat.send(ABOUT_DIGITS, (str(path),))
            yield lambda before=asked: len(answers) > before  # type: ignore[misc]
        settled = QElapsedTimer()
        settled.start()
        yield lambda: settled.hasExpired(SETTLE_MS)
        window.grab().save(str(folder / "pictures.png"))


def _paint_some_bits(window: MainWindow) -> None:
    """Set an example bits map: the first and last block in 8 bits, the up-projections in 3."""
    assert window.context is not None
    draft = window.context.draft
    rules = (
        Rule("*.mlp.up_proj", bits=3),
        Rule("*.mlp.down_proj", bits=8),
        Rule("*.layers.0.*", bits=8),
        Rule("*.layers.29.*", bits=8),
    )
    draft.edit_map(replace(BitsMap(LayerScheme(4, 64)), rules=rules), "example")


def _press(window: MainWindow, keys: str) -> None:
    """Trigger the window's action with the given shortcut."""
    next(action for action in window.actions() if action.shortcut() == QKeySequence(keys)).trigger()


def _steps(window: MainWindow) -> int:
    """Return the number of steps of the block that is being tuned."""
    record = window.context.runs.record if window.context else None
    curve = record.curves.get(len(record.blocks)) if record is not None else None
    return len(curve.losses) if curve is not None else 0


def _end_to_end_steps(window: MainWindow) -> int:
    record = window.context.runs.record if window.context else None
    return len(record.divergences.losses) if record is not None else 0


def _block(window: MainWindow) -> int:
    record = window.context.runs.record if window.context else None
    return len(record.blocks) if record is not None else 0


class _StoryRunner:
    """Runner that continues the story when the condition it waits for is true."""

    def __init__(self, story: Iterator[Condition]) -> None:
        self._story = story
        self._condition: Condition = lambda: True
        self._timer = QTimer(interval=POLL_MS)
        self._timer.timeout.connect(self._go_on)
        self._timer.start()

    def _go_on(self) -> None:
        if not self._condition():
            return
        try:
            self._condition = next(self._story)
        except StopIteration:
            self._timer.stop()
            QApplication.closeAllWindows()
        except BaseException:  # noqa: BLE001 - printed below, and the process ends
            # Without this, the window would only log the error and stay open.
            self._timer.stop()
            traceback.print_exc()
            os._exit(1)


def main() -> int:
    """Take all pictures and return the exit code of the window."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=PICTURES)
    parser.add_argument("--vision", metavar="MODEL", default="")
    options = parser.parse_args()
    folder = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    runners = []

    def begin() -> None:
        window = next(widget for widget in QApplication.topLevelWidgets() if isinstance(widget, MainWindow))
        window.theme.set_scheme("light")
        window.resize(*SIZE)
        told = vision_story(window, folder, options.vision) if options.vision else story(window, folder)
        runners.append(_StoryRunner(told))

    with tempfile.TemporaryDirectory(prefix="bitwright-pictures-") as home:
        os.environ["BITWRIGHT_HOME"] = home
        return application.run(None, on_first_paint=begin)


if __name__ == "__main__":
    sys.exit(main())
