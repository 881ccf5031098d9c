"""Colors with sufficient contrast in both schemes, and icons."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from PySide6.QtGui import QColor, QGuiApplication, QIcon, QPalette
from PySide6.QtWidgets import QLineEdit
from pytestqt.qtbot import QtBot

from app.theme import ICONS, Theme, mixed
from tests.app.contrast import contrast

ROLES = ("accent", "good", "warning", "bad", "muted")
NEEDED = (
    "model", "recipe", "layers", "run", "chat", "settings", "play", "pause", "stop", "folder", "search", "undo", "redo",
    "copy", "close", "warning", "check", "download", "send", "bitwright",
)  # fmt: skip


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest, theme: Theme) -> str:
    theme.set_scheme(request.param)
    return str(request.param)


def test_a_change_of_scheme_is_told_once(qtbot: QtBot, theme: Theme) -> None:
    told: list[bool] = []
    theme.changed.connect(lambda: told.append(theme.dark))
    theme.set_scheme("dark")
    theme.set_scheme("dark")
    theme.set_scheme("light")
    assert told == [True, False]


def test_the_palette_follows_the_scheme(theme: Theme, scheme: str) -> None:
    palette = QGuiApplication.palette()
    ground, text = palette.color(QPalette.ColorRole.Window), palette.color(QPalette.ColorRole.WindowText)
    assert (ground.lightness() < text.lightness()) is (scheme == "dark")


@pytest.mark.parametrize("role", ROLES)
def test_text_in_every_role_can_be_read_on_every_ground(theme: Theme, scheme: str, role: str) -> None:
    palette = QGuiApplication.palette()
    grounds = [palette.color(QPalette.ColorRole.Window), palette.color(QPalette.ColorRole.Base), theme.color("surface")]
    assert min(contrast(theme.color(role), ground) for ground in grounds) >= 4.5


def test_text_and_placeholders_of_the_palette_can_be_read(theme: Theme, scheme: str) -> None:
    palette = QGuiApplication.palette()
    pairs = (("WindowText", "Window"), ("Text", "Base"), ("ButtonText", "Button"), ("PlaceholderText", "Base"))
    found = {pair: contrast(*(palette.color(QPalette.ColorRole[name]) for name in pair)) for pair in pairs}
    assert {pair: value for pair, value in found.items() if value < 4.5} == {}


def test_the_edge_of_a_field_can_be_seen(qtbot: QtBot, theme: Theme, scheme: str) -> None:
    field = QLineEdit()
    qtbot.addWidget(field)
    field.resize(80, 30)
    edge = field.grab().toImage().pixelColor(40, 0)
    assert contrast(edge, QGuiApplication.palette().color(QPalette.ColorRole.Window)) >= 3


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8, 16])
def test_text_on_the_color_of_bits_can_be_read(theme: Theme, bits: int) -> None:
    color = theme.bits_color(bits)
    assert contrast(theme.text_on(color), color) >= 4.5


def test_the_bits_have_the_colors_that_everybody_tells_apart(theme: Theme) -> None:
    names = [theme.bits_color(bits).name() for bits in (2, 3, 4, 5, 6, 8, 16)]
    assert names == ["#d55e00", "#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#0072b2", "#999999"]


def test_the_scale_of_quantities_grows_lighter(theme: Theme) -> None:
    lights = [contrast(theme.cividis(step / 20), QColor("black")) for step in range(21)]
    assert lights == sorted(lights)


@pytest.mark.parametrize(("t", "same"), [(-1.0, 0.0), (2.0, 1.0), (float("nan"), 0.0)])
def test_the_scale_has_ends(theme: Theme, t: float, same: float) -> None:
    assert theme.cividis(t) == theme.cividis(same)


@pytest.mark.parametrize("name", NEEDED)
def test_every_icon_is_a_drawing(name: str) -> None:
    root = ElementTree.fromstring((ICONS / f"{name}.svg").read_text(encoding="utf-8"))
    assert root.tag.endswith("svg")


def test_an_icon_is_drawn_in_the_color_of_text_and_again_after_a_change(theme: Theme) -> None:
    seen = [darkest(theme.icon("stop")).lightness()]
    theme.set_scheme("dark")
    seen.append(darkest(theme.icon("stop")).lightness())
    assert seen[0] < 80 < 170 < seen[1]


def test_a_disabled_icon_is_paler(theme: Theme) -> None:
    icon = theme.icon("stop")
    assert darkest(icon, QIcon.Mode.Disabled).lightness() > darkest(icon).lightness() + 60


def test_mixing_goes_from_one_color_to_the_other() -> None:
    black, white = QColor("black"), QColor("white")
    assert [mixed(black, white, share).red() for share in (0, 0.5, 1)] == [0, 128, 255]


def darkest(icon: QIcon, mode: QIcon.Mode = QIcon.Mode.Normal) -> QColor:
    """The color in the middle of a filled icon."""
    return QColor(icon.pixmap(24, 24, mode).toImage().pixelColor(12, 12))
