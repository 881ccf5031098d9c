"""Colors by role, the colors of the bits, and tinted icons, for the light and the dark scheme.

Depends on Qt's palette and the files in resources/icons. Widgets connect to `changed`.

In modules that are imported before the first paint, the namespace `Qt` (`Qt.AlignmentFlag` and the like) is not
imported: that creates its hundred enumerations, which takes as long as the rest of the frame. Enum values of
properties are given by name instead.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

from PySide6.QtCore import QObject, Signal
from PySide6.QtGui import QColor, QGuiApplication, QIcon, QImage, QPalette, QPixmap
from PySide6.QtWidgets import QApplication

ICONS: Final = Path(__file__).resolve().parent.parent / "resources" / "icons"

_SCHEMES: Final = {"system": "Unknown", "light": "Light", "dark": "Dark"}
_ROLES: Final = {
    "accent": ("#1f6fb2", "#4ba3e3"),
    "good": ("#1a7f4b", "#4cc38a"),
    "warning": ("#8a5a00", "#e0a83e"),
    "bad": ("#b3261e", "#f2857c"),
    "muted": ("#5c6370", "#a4abb6"),
    "line": ("#d4d7dd", "#3d4149"),
    "surface": ("#ffffff", "#26282d"),
    "plot": ("#ffffff", "#1e2024"),
}
"""Color of each role in the light and the dark scheme. As text, each has a contrast of at least 4.5 to 1."""
_GROUNDS: Final = {
    QPalette.ColorRole.Window: ("#f4f5f7", "#1e2024"),
    QPalette.ColorRole.WindowText: ("#1b1e24", "#e8eaee"),
    QPalette.ColorRole.Base: ("#ffffff", "#26282d"),
    QPalette.ColorRole.AlternateBase: ("#f4f5f7", "#2b2e34"),
    QPalette.ColorRole.Text: ("#1b1e24", "#e8eaee"),
    QPalette.ColorRole.PlaceholderText: ("#6b7280", "#979eaa"),
    QPalette.ColorRole.Button: ("#f4f5f7", "#33363d"),
    QPalette.ColorRole.ButtonText: ("#1b1e24", "#e8eaee"),
    QPalette.ColorRole.ToolTipBase: ("#ffffff", "#33363d"),
    QPalette.ColorRole.ToolTipText: ("#1b1e24", "#e8eaee"),
    QPalette.ColorRole.Light: ("#ffffff", "#4a4e57"),
    QPalette.ColorRole.Midlight: ("#eceef1", "#3d4149"),
    QPalette.ColorRole.Mid: ("#c3c7cf", "#2b2e34"),
    QPalette.ColorRole.Dark: ("#a6abb5", "#17181b"),
    QPalette.ColorRole.Shadow: ("#6b7280", "#0c0d0e"),
    QPalette.ColorRole.BrightText: ("#ffffff", "#ffffff"),
}
_EDGES: Final = ("#868c97", "#6f7683")
"""Borders of input fields and check boxes, with a contrast of 3 to 1. Fusion would derive them from the background."""
_EDGED: Final = ("QLineEdit", "QAbstractSpinBox", "QCheckBox", "QPlainTextEdit", "NameBox")
_FUSION_DARKENS: Final = 140
_DISABLED: Final = ("#9aa0aa", "#6d737e")
_BITS: Final = {
    2: "#D55E00", 3: "#E69F00", 4: "#56B4E9", 5: "#009E73", 6: "#CC79A7", 8: "#0072B2", 16: "#999999",
}  # fmt: skip
_CIVIDIS: Final = (
    "#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838",
)  # fmt: skip
_ICON_SIZES: Final = (16, 24, 48)


class Theme(QObject):
    """Colors and icons of the window. Create it after the application object.

    Signals:
        changed: the scheme changed between light and dark; get colors and icons again.
    """

    changed = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._scheme = "system"
        self._hints = QGuiApplication.styleHints()
        self._dark = QGuiApplication.palette().color(QPalette.ColorRole.Window).lightness() < 128
        self._wants_contrast = False
        self._hints.colorSchemeChanged.connect(self._follow)
        self._apply()

    @property
    def scheme(self) -> str:
        """The requested scheme: `system`, `light` or `dark`."""
        return self._scheme

    @property
    def dark(self) -> bool:
        """Return whether the scheme is dark now."""
        return self._dark

    def set_scheme(self, scheme: str) -> None:
        """Use the `light` or the `dark` scheme, or follow the `system`."""
        wanted = scheme if scheme in _SCHEMES else "system"
        if wanted != self._scheme:
            self._scheme = wanted
            self._hints.setProperty("colorScheme", _SCHEMES[wanted])
            self._follow()

    def heed_contrast(self) -> None:
        """Use the system's palette if the user asked for high contrast. Call it after the first paint."""
        from PySide6.QtCore import Qt  # late: see app.theme

        hints = getattr(self._hints, "accessibility", None)  # Qt 6.10
        if hints is not None and hints().contrastPreference() == Qt.ContrastPreference.HighContrast:
            self._wants_contrast = True
            self._apply()
            self.changed.emit()

    def color(self, role: str) -> QColor:
        """Return the color of a role (`accent`, `good`, `bad` ...), or of text `on_accent`."""
        if role == "on_accent":
            return self.text_on(self.color("accent"))
        return QColor(_ROLES[role][self._dark])

    def bits_color(self, bits: int) -> QColor:
        """Return the color of a number of bits: the same in both schemes, distinguishable by color-blind people."""
        return QColor(_BITS.get(bits, _BITS[16]))

    def cividis(self, t: float) -> QColor:
        """Return a color of the cividis map: dark blue (0) over grey to yellow (1), perceptually uniform."""
        place = min(1.0, max(0.0, t if t == t else 0.0)) * (len(_CIVIDIS) - 1)
        first = min(int(place), len(_CIVIDIS) - 2)
        return mixed(QColor(_CIVIDIS[first]), QColor(_CIVIDIS[first + 1]), place - first)

    def text_on(self, color: QColor) -> QColor:
        """Return black or white, whichever has more contrast on `color`."""
        light = luminance(color)
        return QColor("black") if (light + 0.05) ** 2 > 0.05 * 1.05 else QColor("white")

    def icon(self, name: str, role: str = "") -> QIcon:
        """Return the icon `resources/icons/NAME.svg` in the color of text or of a role; paler when disabled."""
        color = self.color(role) if role else QGuiApplication.palette().color(QPalette.ColorRole.WindowText)
        return _tinted(name, color.name(), _DISABLED[self._dark])

    def _wants_dark(self) -> bool:
        if self._scheme != "system":
            return self._scheme == "dark"
        from PySide6.QtCore import Qt  # late: see app.theme

        return self._hints.colorScheme() == Qt.ColorScheme.Dark

    def _follow(self) -> None:
        dark = self._wants_dark()
        if dark != self._dark:
            self._dark = dark
            self._apply()
            self.changed.emit()

    def _apply(self) -> None:
        if self._wants_contrast:
            QGuiApplication.setPalette(QPalette())
            return
        palette = self._palette()
        QGuiApplication.setPalette(palette)
        palette.setColor(QPalette.ColorRole.Window, QColor(_EDGES[self._dark]).lighter(_FUSION_DARKENS))
        for name in _EDGED:
            QApplication.setPalette(palette, name)  # type: ignore[arg-type] # its stubs say bytes, which it refuses

    def _palette(self) -> QPalette:
        palette = QPalette()
        for role, pair in _GROUNDS.items():
            palette.setColor(role, QColor(pair[self._dark]))
        accent = self.color("accent")
        for role in (QPalette.ColorRole.Highlight, QPalette.ColorRole.Accent):
            palette.setColor(role, accent)
        palette.setColor(QPalette.ColorRole.HighlightedText, self.text_on(accent))
        palette.setColor(QPalette.ColorRole.Link, accent)
        palette.setColor(QPalette.ColorRole.LinkVisited, accent)
        for role in (QPalette.ColorRole.WindowText, QPalette.ColorRole.Text, QPalette.ColorRole.ButtonText):
            palette.setColor(QPalette.ColorGroup.Disabled, role, QColor(_DISABLED[self._dark]))
        return palette


def luminance(color: QColor) -> float:
    """Return the relative luminance as WCAG defines it: 0 for black, 1 for white."""

    def linear(value: float) -> float:
        return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4

    return 0.2126 * linear(color.redF()) + 0.7152 * linear(color.greenF()) + 0.0722 * linear(color.blueF())


def mixed(first: QColor, second: QColor, share: float) -> QColor:
    """Return `first` mixed with a share (0 to 1) of `second`."""
    return QColor.fromRgbF(
        first.redF() + (second.redF() - first.redF()) * share,
        first.greenF() + (second.greenF() - first.greenF()) * share,
        first.blueF() + (second.blueF() - first.blueF()) * share,
    )


@cache
def _tinted(name: str, color: str, pale: str) -> QIcon:
    drawing = (ICONS / f"{name}.svg").read_text(encoding="utf-8")
    icon = QIcon()
    for mode, tint, sizes in ((QIcon.Mode.Normal, color, _ICON_SIZES), (QIcon.Mode.Disabled, pale, _ICON_SIZES[1:])):
        data = drawing.replace("currentColor", tint).encode()
        for size in sizes:
            icon.addPixmap(QPixmap.fromImage(_drawn(data, size)), mode)
    return icon


def _drawn(svg: bytes, size: int) -> QImage:
    from PySide6.QtCore import QByteArray
    from PySide6.QtGui import QPainter
    from PySide6.QtSvg import QSvgRenderer

    # zeros: transparent
    image = QImage(bytes(4 * size * size), size, size, QImage.Format.Format_ARGB32_Premultiplied).copy()
    painter = QPainter(image)
    QSvgRenderer(QByteArray(svg)).render(painter)
    painter.end()
    return image
