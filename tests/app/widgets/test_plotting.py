"""Import of pyqtgraph: the types of PySide6 exist before its thread starts."""

from __future__ import annotations

import subprocess
import sys

CODE = """
from PySide6 import QtCore, QtGui, QtWidgets

modules = (QtCore, QtGui, QtWidgets)
names = {(module, name) for module in modules for name in dir(module)}
lazy = {(module, name) for module, name in names if name not in vars(module)}
assert len(lazy) > 300, len(lazy)

from PySide6.QtCore import QTimer
from app.application import make_application
from app.widgets import plotting

application = make_application()
left = []
importing = plotting._import

def started():
    left.extend(name for module, name in names if name not in vars(module))
    importing()

def look():
    if plotting.ready():
        application.quit()

plotting._import = started
timer = QTimer()
timer.timeout.connect(look)
timer.start(5)
plotting.begin_import()
application.exec()
import sys
print("pyqtgraph" in sys.modules, left)
"""


def test_all_types_exist_before_another_thread_uses_them() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True []", done.stderr
