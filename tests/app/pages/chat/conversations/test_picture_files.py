"""Copies of attached pictures: names, equal content, and the data URIs of exported conversations."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from app.pages.chat.conversations.conversation import Conversation
from app.pages.chat.conversations.json_format import from_json, to_json
from app.pages.chat.conversations.picture_files import PictureFiles, display_name, embed, extract
from core.errors import CorruptFile, OutputProblem


@pytest.fixture
def files(tmp_path: Path) -> PictureFiles:
    return PictureFiles(tmp_path / "pictures")


def exported(files: PictureFiles, *paths: str) -> dict[str, Any]:
    conversation = Conversation()
    conversation.add("user", "", paths)
    return embed(to_json(conversation), files.folder)


def test_equal_pictures_are_one_file(files: PictureFiles) -> None:
    assert files.put(b"cat", "cat.png", "png") == files.put(b"cat", "/home/me/cat.jpg", "png")
    assert len(list(files.folder.iterdir())) == 1


def test_a_torn_copy_is_written_again(files: PictureFiles) -> None:
    path = files.put(b"cat", "cat.png", "png")
    path.write_bytes(b"c")
    assert files.put(b"cat", "cat.png", "png").read_bytes() == b"cat"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("cat.png", "cat.jpg"), ("my cat (2).jpeg", "my cat (2).jpg"), ("../../x", "x.jpg"),
        ("a;b,c\n.png", "a b c.jpg"),
        ("...", "picture.jpg"), ("\udcff", "picture.jpg"), ("Katze-\N{LATIN SMALL LETTER U WITH DIAERESIS}.png",
        "Katze-\N{LATIN SMALL LETTER U WITH DIAERESIS}.jpg"),
    ],
)  # fmt: skip
def test_the_name_of_the_file_is_kept_as_far_as_it_can_be(files: PictureFiles, name: str, shown: str) -> None:
    path = files.put(b"cat", name, "jpeg")
    assert display_name(str(path)) == shown
    assert files.path(path.name) == str(path)


def test_a_long_name_still_fits_a_file_system(files: PictureFiles) -> None:
    path = files.put(b"cat", "\N{CJK UNIFIED IDEOGRAPH-4E2D}" * 300 + ".png", "png")
    assert path.read_bytes() == b"cat"
    assert files.path(path.name) == str(path)


@pytest.mark.skipif(os.name != "posix", reason="rights are others there")
def test_nobody_else_may_see_them(files: PictureFiles) -> None:
    path = files.put(b"cat", "cat.png", "png")
    assert (path.stat().st_mode | files.folder.stat().st_mode) & 0o077 == 0


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "pictures").write_text("a file stands in the way")
    with pytest.raises(OutputProblem, match="cannot be copied"):
        PictureFiles(tmp_path / "pictures").put(b"cat", "cat.png", "png")


def test_an_exported_picture_is_found_on_another_machine(files: PictureFiles, tmp_path: Path) -> None:
    value = exported(files, str(files.put(b"cat", "cat.png", "png")))
    elsewhere = PictureFiles(tmp_path / "elsewhere")
    (path,) = from_json(extract(value, elsewhere), pictures=elsewhere).path()[0].pictures
    assert (Path(path).read_bytes(), display_name(path)) == (b"cat", "cat.png")


def test_a_missing_picture_keeps_its_name(files: PictureFiles) -> None:
    path = files.put(b"cat", "cat.png", "png")
    path.unlink()
    value = extract(exported(files, str(path)), files)
    assert from_json(value, pictures=files).path()[0].pictures == (str(path),)


@pytest.mark.parametrize(
    "uri", ["data:text/html;base64,eA==", "data:image/png;base64,???", "data:image/svg;base64,eA=="]
)
def test_what_is_no_picture_is_not_imported(files: PictureFiles, uri: str) -> None:
    value = exported(files)
    value["messages"][0]["pictures"] = [uri]
    with pytest.raises(CorruptFile):
        extract(value, files)


def test_what_is_no_conversation_is_left_to_its_reader(files: PictureFiles) -> None:
    values: tuple[object, ...] = ([], None, {"messages": 3}, {"messages": [3, {"pictures": 5}]})
    for value in values:
        assert extract(value, files) == value


PART = {"type": "image_url", "image_url": {"url": "data:image/jpg;base64,Y2F0"}}


@pytest.mark.parametrize("wrapped", [True, False])
def test_pictures_of_another_program_are_imported(files: PictureFiles, wrapped: bool) -> None:
    messages = [{"role": "user", "content": [PART, {"type": "text", "text": "Who?"}]}]
    value = {"messages": messages} if wrapped else messages
    (message,) = from_json(extract(value, files), pictures=files).path()
    assert (message.text, [Path(path).read_bytes() for path in message.pictures]) == ("Who?", [b"cat"])


@pytest.mark.parametrize(
    "part", [{"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}, {"type": "audio"}, 3]
)
def test_parts_that_are_not_in_the_file_are_refused(files: PictureFiles, part: object) -> None:
    with pytest.raises(CorruptFile, match="parts"):
        extract([{"role": "user", "content": [part]}], files)


def test_names_that_no_copy_can_have_are_refused(files: PictureFiles) -> None:
    with pytest.raises(CorruptFile):
        from_json([{"role": "user", "content": "x", "pictures": ["../secret.png"]}], pictures=files)
