"""Files of conversations: atomic writes, listing, renaming, deleting and restoring."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from app.pages.chat.conversations.conversation import Conversation
from app.pages.chat.conversations.files import KEPT_DAYS, ConversationFiles, matching
from app.pages.chat.conversations.json_format import to_json
from core.errors import CorruptFile, OutputProblem


@pytest.fixture
def store(tmp_path: Path) -> ConversationFiles:
    return ConversationFiles(tmp_path / "conversations")


def saved(store: ConversationFiles, text: str, updated: float = 1000.0) -> Conversation:
    conversation = Conversation()
    conversation.add("user", text)
    conversation.updated = updated
    store.save(conversation.id, to_json(conversation))
    return conversation


def test_without_a_folder_there_are_none(store: ConversationFiles) -> None:
    assert store.list().summaries == ()


def test_what_was_saved_is_found_the_newest_first(store: ConversationFiles) -> None:
    for text, when in (("old", 1.0), ("new", 3.0), ("middle", 2.0)):
        saved(store, text, when)
    assert [summary.name for summary in store.list().summaries] == ["new", "middle", "old"]


def test_what_was_saved_can_be_opened(store: ConversationFiles) -> None:
    conversation = saved(store, "hello")
    assert to_json(store.load(conversation.id)) == to_json(conversation)


@pytest.mark.skipif(os.name != "posix", reason="rights are others there")
def test_nobody_else_may_read_them(store: ConversationFiles) -> None:
    store.folder.mkdir(mode=0o755)
    conversation = saved(store, "a secret")
    assert store.folder.stat().st_mode & 0o077 == 0
    assert (store.folder / f"{conversation.id}.json").stat().st_mode & 0o077 == 0


def test_a_torn_file_is_named_and_stays(store: ConversationFiles) -> None:
    whole = saved(store, "hello")
    torn = store.folder / "torn.json"
    torn.write_bytes((store.folder / f"{whole.id}.json").read_bytes()[:40])
    listing = store.list()
    assert [name for name, _why in listing.broken] == ["torn.json"]
    assert [summary.id for summary in listing.summaries] == [whole.id]
    assert torn.exists()


def test_what_a_killed_writer_left_is_passed_over(store: ConversationFiles) -> None:
    saved(store, "hello")
    (store.folder / ".x.json.7.tmp").write_text("{")
    (store.folder / ".y.json").write_text("{")
    assert store.list().broken == ()


def test_a_conversation_can_be_renamed(store: ConversationFiles) -> None:
    conversation = saved(store, "hello")
    assert store.rename(conversation.id, "Greetings").name == "Greetings"
    assert store.load(conversation.id).title == "Greetings"


def test_renaming_does_not_make_it_newer(store: ConversationFiles) -> None:
    conversation = saved(store, "hello", 1000.0)
    assert store.rename(conversation.id, "Greetings").updated == 1000.0


def test_a_deleted_conversation_is_gone_from_the_list(store: ConversationFiles) -> None:
    store.remove(saved(store, "hello").id)
    assert store.list().summaries == ()


def test_a_deleted_conversation_can_be_brought_back(store: ConversationFiles) -> None:
    conversation = saved(store, "hello")
    store.remove(conversation.id)
    store.restore(conversation.id)
    assert [summary.id for summary in store.list().summaries] == [conversation.id]


def test_what_was_never_saved_can_be_deleted(store: ConversationFiles) -> None:
    store.remove("nobody")
    assert not store.list().summaries


def test_what_was_deleted_long_ago_goes_for_good(store: ConversationFiles) -> None:
    conversation = saved(store, "hello")
    store.remove(conversation.id)
    aside = store.folder / "deleted" / f"{conversation.id}.json"
    long_ago = time.time() - (KEPT_DAYS + 1) * 86_400
    os.utime(aside, (long_ago, long_ago))
    store.list()
    assert not aside.exists()


def test_what_is_gone_for_good_cannot_be_brought_back(store: ConversationFiles) -> None:
    saved(store, "hello")
    with pytest.raises(OutputProblem):
        store.restore("nobody")


def test_a_folder_that_cannot_be_written_is_told(store: ConversationFiles) -> None:
    store.folder.parent.mkdir(exist_ok=True)
    store.folder.write_text("a file stands in the way")
    with pytest.raises(OutputProblem):
        saved(store, "hello")


@pytest.mark.parametrize("name", ["../escape", "a/b", "", "x" * 100])
def test_a_name_cannot_lead_out_of_the_folder(store: ConversationFiles, name: str) -> None:
    with pytest.raises(CorruptFile):
        store.load(name)


def test_all_words_must_occur(store: ConversationFiles) -> None:
    saved(store, "The capital of France")
    saved(store, "The capital of Spain")
    found = matching(store.list().summaries, "capital FRANCE")
    assert [summary.name for summary in found] == ["The capital of France"]


def test_an_empty_search_finds_all(store: ConversationFiles) -> None:
    saved(store, "hello")
    assert len(matching(store.list().summaries, "  ")) == 1


def with_picture(store: ConversationFiles, data: bytes) -> tuple[Conversation, Path]:
    """A saved conversation with a picture that was attached long ago."""
    picture = store.pictures.put(data, "cat.png", "png")
    long_ago = time.time() - (KEPT_DAYS + 1) * 86_400
    os.utime(picture, (long_ago, long_ago))
    conversation = Conversation()
    conversation.add("user", "", (str(picture),))
    store.save(conversation.id, to_json(conversation))
    return conversation, picture


def forgotten(store: ConversationFiles, conversation: Conversation) -> None:
    """Delete a conversation as if it had been long ago."""
    store.remove(conversation.id)
    long_ago = time.time() - (KEPT_DAYS + 1) * 86_400
    os.utime(store.folder / "deleted" / f"{conversation.id}.json", (long_ago, long_ago))
    store.list()


def test_a_picture_comes_back_with_its_conversation(store: ConversationFiles) -> None:
    conversation, picture = with_picture(store, b"cat")
    assert store.load(conversation.id).path()[0].pictures == (str(picture),)


def test_the_picture_of_a_used_or_recently_deleted_conversation_stays(store: ConversationFiles) -> None:
    conversation, picture = with_picture(store, b"cat")
    store.list()
    store.remove(conversation.id)
    store.list()
    assert picture.exists()


def test_the_picture_of_a_forgotten_conversation_is_removed(store: ConversationFiles) -> None:
    conversation, picture = with_picture(store, b"cat")
    forgotten(store, conversation)
    assert not picture.exists()


def test_a_picture_that_another_conversation_uses_stays(store: ConversationFiles) -> None:
    first, picture = with_picture(store, b"cat")
    with_picture(store, b"cat")
    forgotten(store, first)
    assert picture.exists()


def test_the_picture_of_an_unreadable_conversation_stays(store: ConversationFiles) -> None:
    conversation, picture = with_picture(store, b"cat")
    path = store.folder / f"{conversation.id}.json"
    path.write_bytes(path.read_bytes()[:-8])
    store.list()
    assert picture.exists()


def test_only_copies_of_pictures_are_removed(store: ConversationFiles) -> None:
    conversation, picture = with_picture(store, b"cat")
    other = picture.with_name("holiday.png")
    other.write_bytes(b"mine")
    os.utime(other, (0, 0))
    forgotten(store, conversation)
    assert other.exists()
