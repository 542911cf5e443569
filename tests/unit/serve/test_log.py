from __future__ import annotations

from pathlib import Path

from ssjf_tools.serve.log import ServerLog, loaded_models


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_only_complete_new_lines_are_returned(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = ServerLog(path)
    assert log.new_lines() == []
    append(path, "one\ntw")
    assert log.new_lines() == ["one"]
    append(path, "o\n")
    assert log.new_lines() == ["two"]
    assert log.new_lines() == []


def test_what_was_there_before_is_not_new(tmp_path: Path) -> None:
    path = tmp_path / "log"
    append(path, "old\n")
    log = ServerLog(path)
    append(path, "new\n")
    assert log.new_lines() == ["new"]


def test_loaded_models_in_their_order() -> None:
    lines = ["I1122 x] \"successfully loaded 'scheduler'\"", "I1122 noise", "I1122 x] \"successfully loaded 'unary'\""]
    assert loaded_models(lines) == ["scheduler", "unary"]


def test_the_explanation_is_the_last_errors(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = ServerLog(path)
    append(path, "".join(f"I1122 line {n}\n" for n in range(50)))
    append(path, 'E1122 server.cc:241] "CudaDriverHelper has not been initialized."\n| x | UNAVAILABLE: y |\n')
    append(path, "E1122 failed to load 'scheduler'\nI1122 unloading\nerror: creating server: Internal\n")
    assert log.explanation() == ["E1122 failed to load 'scheduler'", "error: creating server: Internal"]


def test_without_errors_the_explanation_is_the_last_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = ServerLog(path)
    append(path, "".join(f"I1122 line {n}\n" for n in range(50)))
    assert log.explanation(2) == ["I1122 line 48", "I1122 line 49"]
