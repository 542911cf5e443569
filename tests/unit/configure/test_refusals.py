"""Every way in which configuring can fail: by file and key, or by option."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.byte_tokenizer import write_tokenizer_dir
from tests.unit.configure.engine_folder import CHECKPOINT, ENGINE, MISSING, write_config
from tests.unit.configure.place import Place

WRONG_ENGINES: list[tuple[dict[str, Any], str]] = [
    ({"pretrained_config": MISSING}, "key pretrained_config is missing; is this a checkpoint?"),
    ({"build_config": MISSING}, "key build_config is missing"),
    ({"build_config.max_batch_size": MISSING}, "key build_config.max_batch_size is missing"),
    ({"build_config.max_batch_size": "64"}, "key build_config.max_batch_size is '64', expected a whole number"),
    ({"build_config.max_batch_size": 0}, "key build_config.max_batch_size is 0"),
    ({"build_config.max_seq_len": MISSING}, "key build_config.max_seq_len is missing; TensorRT-LLM 0.11"),
    ({"build_config.max_seq_len": True}, "key build_config.max_seq_len is True"),
    ({"build_config.max_input_len": MISSING}, "key build_config.max_input_len is missing"),
    ({"build_config.max_num_tokens": None}, "key build_config.max_num_tokens is missing"),
    ({"build_config.max_beam_width": MISSING}, "key build_config.max_beam_width is missing"),
    ({"build_config.kv_cache_type": "CONTINUOUS"}, "key build_config.kv_cache_type is 'CONTINUOUS'"),
    ({"build_config.plugin_config.remove_input_padding": False}, "key build_config.plugin_config.remove_input_padding"),
    ({"build_config.plugin_config.use_paged_context_fmha": 1}, "use_paged_context_fmha is 1, expected true or false"),
    ({"pretrained_config.mapping": MISSING}, "key pretrained_config.mapping.world_size is missing"),
    ({"pretrained_config.vocab_size": MISSING}, "key pretrained_config.vocab_size is missing"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG_ENGINES, ids=[message for _, message in WRONG_ENGINES])
def test_a_wrong_engine_is_named_by_file_and_key(
    place: Place, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], message: str
) -> None:
    write_config(place.root / "engine", ENGINE, changes)
    assert place.run() == 1
    error = capsys.readouterr().err
    assert str(place.root / "engine" / "config.json") in error
    assert message in error
    assert not (place.root / "model_repository").exists()


def test_without_either_cache_key_the_engine_is_refused(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    gone = {"build_config.kv_cache_type": MISSING, "build_config.plugin_config.paged_kv_cache": MISSING}
    write_config(place.root / "engine", ENGINE, gone)
    assert place.run() == 1
    assert "key build_config.plugin_config.paged_kv_cache is None" in capsys.readouterr().err


def _remove(name: str) -> Any:
    return lambda root: (root / name).unlink()


def _write(name: str, text: str) -> Any:
    return lambda root: (root / name).write_text(text)


WRONG_FILES: list[tuple[Any, str]] = [
    (_remove("engine/config.json"), "engine/config.json: No such file"),
    (_write("engine/config.json", "{\n'a': 1}"), "engine/config.json: line 2 is not JSON"),
    (_write("engine/config.json", "[]"), "engine/config.json: is a JSON list, expected an object"),
    (_remove("engine/rank0.engine"), "engine/rank0.engine: no such file, but key pretrained_config.mapping.world_size"),
    (_remove("tokenizer/tokenizer.json"), "tokenizer/tokenizer.json does not exist"),
    (_write("tokenizer/tokenizer.json", "{}"), "tokenizer/tokenizer.json: "),
    (_remove("tokenizer/tokenizer_config.json"), "tokenizer/tokenizer_config.json: No such file"),
    (_write("tokenizer/tokenizer_config.json", "nonsense"), "tokenizer/tokenizer_config.json: line 1 is not JSON"),
    (_write("tokenizer/tokenizer_config.json", "{}"), "tokenizer/tokenizer_config.json: key eos_token is missing"),
    (
        _write("tokenizer/tokenizer_config.json", '{"eos_token": "</s>"}'),
        "tokenizer/tokenizer_config.json: key eos_token is '</s>', which tokenizer.json does not know",
    ),
]


@pytest.mark.parametrize(("damage", "message"), WRONG_FILES, ids=[message for _, message in WRONG_FILES])
def test_a_missing_or_broken_file_is_named(
    place: Place, capsys: pytest.CaptureFixture[str], damage: Any, message: str
) -> None:
    damage(place.root)
    assert place.run() == 1
    assert f"{place.root}/{message}" in capsys.readouterr().err


@pytest.mark.parametrize(("size", "said"), [(256, "more than the engine knows"), (400, "too few to be this model's")])
def test_another_models_tokenizer_is_noticed(
    place: Place, capsys: pytest.CaptureFixture[str], size: int, said: str
) -> None:
    write_config(place.root / "engine", ENGINE, {"pretrained_config.vocab_size": size})
    assert place.run() == 1
    error = capsys.readouterr().err
    assert "tokenizer/tokenizer.json: key model.vocab" in error
    assert said in error
    assert f"engine/config.json is {size}" in error


def test_a_sentencepiece_file_alone_is_explained(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    (place.root / "tokenizer" / "tokenizer.json").rename(place.root / "tokenizer" / "tokenizer.model")
    assert place.run() == 1
    assert "only tokenizer.model: save it once" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (None, "has no chat_template"),
        ("{{ raise_exception('no turns') }}", "chat_template cannot be rendered: no turns"),
    ],
)
def test_a_chat_template_that_cannot_serve_is_noticed_now(
    place: Place, capsys: pytest.CaptureFixture[str], template: str | None, said: str
) -> None:
    write_tokenizer_dir(place.root / "tokenizer", template)
    assert place.run("--prompt-format", "chat") == 1
    error = capsys.readouterr().err
    assert "tokenizer/tokenizer_config.json" in error
    assert said in error


def test_flavours_are_not_mixed_up(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert place.run("--flavour", "llmapi") == 1
    assert "engine/config.json: key build_config: this is a TensorRT engine" in capsys.readouterr().err
    write_config(place.root / "engine", CHECKPOINT)
    assert place.run("--flavour", "llmapi", "--llmapi-model", "/nowhere") == 1
    assert "/nowhere/model.py: no such file" in capsys.readouterr().err
    assert place.run("--flavour", "llmapi", "--max-seq-len", "9000") == 1
    assert "--max-seq-len is 9000, but key max_position_embeddings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--max-inflight", "64"], "--max-inflight is 64, but key build_config.max_batch_size"),
        (["--max-output-tokens", "4096"], "--max-output-tokens is 4096, expected less than the context of 4096"),
        (["--end-id", "257"], "--end-id is 257, expected -1 to 256"),
        (["--proxy-dir", "/nowhere"], "/nowhere/proxy.json: no such file"),
        (["--templates", "/nowhere"], "/nowhere/ensemble/config.pbtxt: No such file"),
    ],
)
def test_an_option_beyond_the_engine_is_refused(
    place: Place, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    assert place.run(*more) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--max-inflight", "0"], "0 is less than 1"),
        (["--kv-cache-fraction", "1.5"], "1.5 is not between 0 and 1"),
        (["--system-prompt", "x"], "--system-prompt needs --prompt-format chat"),
        (["--prompt-format", "chat", "--system-prompt", "${HOME}"], "--system-prompt has ${"),
        (["--tensor-parallel", "2"], "--tensor-parallel is for --flavour llmapi"),
        (["--flavour", "vllm"], "invalid choice"),
    ],
)
def test_wrong_usage_is_exit_code_2(
    place: Place, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        place.run(*more)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err
