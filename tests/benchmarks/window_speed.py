"""Time to the first paint of the window, and its latency during a real run. Run manually:

    python3 packaging/bootstrap.py exec --extra test env PYTHONPATH=. python tests/benchmarks/window_speed.py

First paint: median of several alternating starts of an empty PySide6 window and of Bitwright, from the start of the
process to the end of the first paint event. Latency: delay of a 16 ms timer of the window during a run of the demo
model, with the run page open.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
EMPTY = """
import time, sys
began = float(sys.argv[1])
from PySide6.QtWidgets import QApplication, QMainWindow, QLabel
from PySide6.QtCore import QEvent
app = QApplication([])
class Window(QMainWindow):
    def event(self, event):
        found = super().event(event)
        if event.type() == QEvent.Type.Paint:
            print(time.time() - began, flush=True)
            import os
            os._exit(0)
        return found
window = Window()
window.setCentralWidget(QLabel("empty"))
window.resize(1024, 700)
window.show()
app.exec()
"""
OURS = """
import time, sys
began = float(sys.argv[1])
from app import application
def painted():
    print(time.time() - began, flush=True)
    import os
    os._exit(0)
application.run(None, on_first_paint=painted)
"""


def first_paint(code: str) -> float:
    """Return the seconds from the start of a process to the end of its first paint."""
    home = tempfile.mkdtemp(prefix="bitwright-speed-")
    command = [sys.executable, "-c", code, str(time.time())]
    # Compiled modules are cached, as for a user; otherwise compilation would be measured.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["BITWRIGHT_HOME"] = home
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=environment)
    return float(done.stdout.split()[-1])


def compare_first_paint(rounds: int) -> dict[str, float]:
    """Return the medians of both windows, started alternately."""
    times: dict[str, list[float]] = {"empty": [], "ours": []}
    for _ in range(rounds):
        times["empty"].append(first_paint(EMPTY))
        times["ours"].append(first_paint(OURS))
    empty, ours = (statistics.median(times[name]) for name in ("empty", "ours"))
    return {"empty_s": round(empty, 3), "ours_s": round(ours, 3), "ratio": round(ours / empty, 2)}


def latency() -> dict[str, float]:
    """Return the milliseconds between ticks of a 16 ms timer of the window while the demo model is quantized."""
    from PySide6.QtCore import Qt, QTimer
    from PySide6.QtWidgets import QApplication

    from app import application
    from app.frame.main_window import MainWindow

    gaps: list[float] = []

    def begin() -> None:
        window = next(widget for widget in QApplication.topLevelWidgets() if isinstance(widget, MainWindow))
        beat = QTimer(window, interval=16, timerType=Qt.TimerType.PreciseTimer)
        step = QTimer(window, interval=200)
        state = {"asked": False, "running": False, "last": 0.0}

        def on_beat() -> None:
            now = time.perf_counter()
            if state["running"]:
                gaps.append(1000 * (now - state["last"]))
            state["last"] = now

        def on_step() -> None:
            context = window.context
            if context is None or len(window.stack.pages) < 5:
                return
            if not state["asked"]:
                state["asked"] = True
                window.open_words("demo")
            elif context.draft.model is not None and context.draft.machine.chosen and context.runs.record is None:
                context.runs.start(context.draft.spec())
                window.go("run")
            elif context.runs.active:
                state["running"] = True
            elif state["running"]:
                state["running"] = False
                window.close()

        beat.timeout.connect(on_beat)
        step.timeout.connect(on_step)
        beat.start()
        step.start()

    with tempfile.TemporaryDirectory(prefix="bitwright-speed-") as home:
        os.environ["BITWRIGHT_HOME"] = home
        application.run(None, on_first_paint=begin)
    gaps.sort()
    at = {f"p{share}": gaps[len(gaps) * share // 100] for share in (50, 95, 99)}
    return {"beats": len(gaps), **{name: round(value, 1) for name, value in at.items()}, "max": round(gaps[-1], 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    print(json.dumps(compare_first_paint(options.rounds)), flush=True)
    print(json.dumps(latency()))


if __name__ == "__main__":
    main()
