"""From an engine folder in its real layout to a filled repository, and every way in which that can fail by name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from ssjf.core.settings import CoreSettings
from ssjf.parameters import Parameters
from ssjf.service.settings import ServiceSettings
from ssjf_tools.configure.__main__ import main
from tests.unit.byte_tokenizer import END, write_tokenizer_dir
from tests.unit.configure.engine_folder import CHECKPOINT, ENGINE, MISSING, write_config, write_llmapi_model
from tokenizer.settings import FolderSettings
from tokenizer.text import TextSettings

CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"


@dataclass
class Place:
    """A site's folder before it is configured."""

    root: Path

    @property
    def arguments(self) -> list[str]:
        files = {"--engine-dir": "engine", "--tokenizer-dir": "tokenizer", "--out": "."}
        return [part for option, folder in files.items() for part in (option, str((self.root / folder).resolve()))]

    def run(self, *more: str) -> int:
        return main([*self.arguments, *more])

    def config(self, model: str) -> Any:
        path = self.root / "model_repository" / model / "config.pbtxt"
        return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())

    def parameters(self, model: str) -> dict[str, str]:
        return {key: entry.string_value for key, entry in self.config(model).parameters.items()}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    write_config(tmp_path / "engine", ENGINE)
    write_tokenizer_dir(tmp_path / "tokenizer", CHAT)
    return Place(tmp_path)


def test_slots_and_limits_are_those_of_the_engine(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert place.run() == 0
    scheduler, engine = place.parameters("scheduler"), place.parameters("tensorrt_llm")
    assert scheduler["max_inflight"] == "48"
    assert scheduler["max_context_tokens"] == place.parameters("preprocessing")["max_context_tokens"] == "4096"
    assert scheduler["max_output_tokens"] == "4095"
    assert (scheduler["end_id"], scheduler["pad_id"]) == ("256", "256")
    assert engine["gpt_model_path"] == str(place.root / "engine")
    config = place.config("tensorrt_llm")
    assert config.max_batch_size == 48
    assert list(config.dynamic_batching.preferred_batch_size) == [48]
    assert config.dynamic_batching.default_queue_policy.max_queue_size == 48
    printed = capsys.readouterr().out
    assert "the engine's max_batch_size" in printed
    assert "scripts/launch" in printed


def test_the_models_take_the_filled_parameters(place: Place) -> None:
    """The scheduler's and the tokenizer's own settings classes read what was written, unknown keys being errors."""
    assert place.run("--prompt-format", "chat", "--system-prompt", 'Be "brief".\nÄ', "--kv-tokens", "9000") == 0
    parameters = Parameters("scheduler", place.parameters("scheduler"), {}, place.root)
    parameters.check_known(ServiceSettings, CoreSettings, TextSettings)
    text = parameters.build(TextSettings)
    assert (text.prompt_format, text.system_prompt, text.end_id) == ("chat", 'Be "brief".\nÄ', 256)
    assert parameters.build(CoreSettings).max_inflight_tokens == 9000
    assert parameters.build(ServiceSettings).engine_flavour == "inflight_batcher_llm"
    Parameters("preprocessing", place.parameters("preprocessing"), {}, place.root).check_known(
        FolderSettings, TextSettings
    )
    assert place.parameters("tensorrt_llm")["max_tokens_in_paged_kv_cache"] == "9000"


def test_an_engine_without_paged_context_gets_no_cache_reuse_and_no_chunks(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"build_config.plugin_config.use_paged_context_fmha": False, "build_config.max_num_tokens": 2048}
    write_config(place.root / "engine", ENGINE, changes)
    assert place.run() == 0
    engine = place.parameters("tensorrt_llm")
    assert (engine["enable_kv_cache_reuse"], engine["enable_chunked_context"]) == ("false", "false")
    assert "refuses prompts of more than 2048 tokens" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["KVCacheType.PAGED", "paged"])
def test_both_spellings_of_the_cache_type_are_read(place: Place, kind: str) -> None:
    write_config(place.root / "engine", ENGINE, {"build_config.kv_cache_type": kind})
    assert place.run("--dry-run") == 0


def test_a_newer_engine_may_leave_out_the_plugin_switches(place: Place) -> None:
    gone = {f"build_config.plugin_config.{key}": MISSING for key in ("paged_kv_cache", "remove_input_padding")}
    write_config(place.root / "engine", ENGINE, gone)
    assert place.run("--dry-run") == 0


def test_nothing_is_written_by_a_dry_run(place: Place) -> None:
    assert place.run("--dry-run") == 0
    assert not (place.root / "model_repository").exists()


def test_paths_in_the_site_are_written_as_the_server_will_see_them(place: Place) -> None:
    (place.root / "proxy").mkdir()
    for name in ("proxy.json", "tokenizer.json"):
        (place.root / "proxy" / name).touch()
    assert place.run("--seen-as", "/opt/ssjf") == 0
    assert place.parameters("tensorrt_llm")["gpt_model_path"] == "/opt/ssjf/engine"
    assert place.parameters("scheduler")["tokenizer_dir"] == "/opt/ssjf/tokenizer"
    assert {place.parameters(model)["proxy_dir"] for model in ("scheduler", "preprocessing", "length_predictor")} == {
        "/opt/ssjf/proxy"
    }


def test_configuring_again_replaces_and_a_failure_leaves_the_old_one(place: Place) -> None:
    assert place.run("--max-inflight", "8") == 0
    assert place.run("--max-inflight", "9") == 0
    assert place.parameters("scheduler")["max_inflight"] == "9"
    assert place.run("--max-inflight", "49") == 1
    assert place.parameters("scheduler")["max_inflight"] == "9"
    assert sorted(path.name for path in place.root.iterdir()) == ["engine", "model_repository", "tokenizer"]


def test_a_folder_of_other_models_is_not_replaced(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    (place.root / "model_repository" / "resnet").mkdir(parents=True)
    assert place.run() == 1
    assert "model_repository: holds more than this project's models" in capsys.readouterr().err


def test_comments_with_the_reasons_stay(place: Place) -> None:
    assert place.run() == 0
    assert (
        "An admitted request is never paused"
        in (place.root / "model_repository" / "tensorrt_llm" / "config.pbtxt").read_text()
    )


def test_llmapi_serves_a_checkpoint(place: Place) -> None:
    write_config(place.root / "engine", CHECKPOINT)
    model = write_llmapi_model(place.root / "nvidia")
    more = ["--flavour", "llmapi", "--llmapi-model", str(model), "--tensor-parallel", "2", "--max-seq-len", "2048"]
    assert place.run(*more) == 0
    config = place.config("tensorrt_llm")
    assert (config.backend, config.max_batch_size, config.model_transaction_policy.decoupled) == ("python", 0, True)
    folder = place.root / "model_repository" / "tensorrt_llm" / "1"
    assert (folder / "model.py").read_text() == "# model.py\n"
    settings = (folder / "model.yaml").read_text()
    assert f'model: "{place.root / "engine"}"\n' in settings
    assert "tensor_parallel_size: 2\nmax_batch_size: 64\nmax_seq_len: 2048\n" in settings
    assert "triton_config:\n  max_batch_size: 0\n  decoupled: true\n" in settings
    scheduler = place.parameters("scheduler")
    assert (scheduler["engine_flavour"], scheduler["max_inflight"]) == ("llmapi", "64")
    assert "end_id" not in scheduler


def test_notes_say_what_nobody_can_decide_for_the_operator(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    write_config(place.root / "engine", ENGINE, {"build_config.max_batch_size": 2048})
    (place.root / "tokenizer" / "generation_config.json").write_text(json.dumps({"eos_token_id": [256, 10]}))
    assert place.run() == 0
    printed = capsys.readouterr().out
    assert "2048 slots are more than the KV cache usually holds" in printed
    assert "lists more end tokens, [10]" in printed
    assert "proxy is not there yet: scripts/build-proxy-plan" in printed


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


@pytest.mark.parametrize(("changes", "message"), WRONG_ENGINES, ids=lambda each: str(each)[:40])
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


def test_a_template_in_a_file_of_its_own_is_read(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    write_tokenizer_dir(place.root / "tokenizer", None)
    (place.root / "tokenizer" / "chat_template.jinja").write_text(CHAT)
    assert place.run("--prompt-format", "chat") == 0
    assert "<user>What is the capital of France?<assistant>" in capsys.readouterr().out


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


def test_the_end_token_is_the_tokenizers(place: Place) -> None:
    assert END == "<|end|>"
    assert place.run("--end-id", "10", "--pad-id", "0") == 0
    scheduler = place.parameters("scheduler")
    assert (scheduler["end_id"], scheduler["pad_id"]) == ("10", "0")
