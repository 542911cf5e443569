"""The site that most of these tests begin with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.byte_tokenizer import write_tokenizer_dir
from tests.unit.configure.engine_folder import ENGINE, write_config
from tests.unit.configure.place import CHAT, Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    write_config(tmp_path / "engine", ENGINE)
    write_tokenizer_dir(tmp_path / "tokenizer", CHAT)
    return Place(tmp_path)
