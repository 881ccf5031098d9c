"""Split GGUF files are read as one file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from core.errors import CorruptFile
from core.events import Event
from core.formats.gguf.importing import import_gguf
from core.formats.gguf.model import open_gguf_model
from core.model.gguf_header import read_gguf_header
from core.model.parts import parts_of, whole_name
from tests.core.formats.gguf import gguf_files


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITWRIGHT_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("name", ["m.gguf", "m-00000-of-00002.gguf", "m-00003-of-00002.gguf", "m-1-of-2.gguf"])
def test_a_name_without_a_valid_part_number_is_a_single_file(name: str) -> None:
    assert parts_of(Path(name)) == [Path(name)]


def test_the_name_of_one_part_gives_the_names_of_all_parts() -> None:
    assert [path.name for path in parts_of(Path("a/M-00002-of-00002.GGUF"))] == [
        "M-00001-of-00002.GGUF", "M-00002-of-00002.GGUF",
    ]  # fmt: skip
    assert whole_name("M-00002-of-00002.GGUF") == "M.GGUF"


def split(folder: Path) -> list[Path]:
    """Write a split GGUF model, and the same model unsplit to `whole/m.gguf`; return the parts."""
    model = gguf_files.build("llama")
    (folder / "whole").mkdir(parents=True)
    gguf_files.write(folder / "whole" / "m.gguf", "llama", model)
    gguf_files.write(folder / "m.gguf", "llama", model, most_tensors=8)
    return sorted(folder.glob("m-*.gguf"))


@pytest.mark.parametrize("part", [0, 1, -1])
def test_a_split_file_is_read_as_a_whole_by_any_part(tmp_path: Path, part: int) -> None:
    parts = split(tmp_path)
    found, whole = open_gguf_model(parts[part]), open_gguf_model(tmp_path / "whole" / "m.gguf")
    assert len(parts) > 2
    assert (found.path, found.config, list(found.mapped)) == (parts[0], whole.config, list(whole.mapped))
    for name in whole.mapped:
        assert np.array_equal(found.values(name), whole.values(name)), name


def test_a_split_file_is_imported_like_a_whole_one(tmp_path: Path) -> None:
    parts = split(tmp_path)
    found, whole = (
        import_gguf(path, list[Event]().append, lambda: False) for path in (parts[1], tmp_path / "whole" / "m.gguf")
    )
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (found / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    parts = split(tmp_path)
    parts[1].unlink()
    with pytest.raises(CorruptFile, match=parts[1].name):
        open_gguf_model(parts[0])


def test_a_renamed_part_is_reported(tmp_path: Path) -> None:
    part = split(tmp_path)[0].rename(tmp_path / "x.gguf")
    with pytest.raises(CorruptFile, match=r"one of \d parts"):
        open_gguf_model(part)


def test_a_part_in_the_place_of_another_is_corrupt(tmp_path: Path) -> None:
    parts = split(tmp_path)
    parts[1].write_bytes(parts[2].read_bytes())
    with pytest.raises(CorruptFile, match="not part 2 of"):
        open_gguf_model(parts[0])


def test_a_git_lfs_pointer_is_reported(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:7\nsize 9\n")
    with pytest.raises(CorruptFile, match="Git LFS pointer"):
        read_gguf_header(tmp_path / "m.gguf")
