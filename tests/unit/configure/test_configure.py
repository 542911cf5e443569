"""From an engine folder in its real layout to a filled repository."""

from __future__ import annotations

import json

import pytest

from ssjf.core.settings import CoreSettings
from ssjf.parameters import Parameters
from ssjf.service.settings import ServiceSettings
from tests.unit.byte_tokenizer import END, write_tokenizer_dir
from tests.unit.configure.engine_folder import CHECKPOINT, ENGINE, MISSING, write_config, write_llmapi_model
from tests.unit.configure.place import CHAT, Place
from tokenizer.settings import FolderSettings
from tokenizer.text import TextSettings


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


def test_a_path_that_is_not_mounted_with_the_site_is_pointed_out(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert place.run("--seen-as", "/opt/ssjf", "--out", str(place.root / "elsewhere")) == 0
    assert f"leaves them as they are: {place.root / 'engine'}" in capsys.readouterr().out


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


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--max-inflight", "64"], ""),
        (["--max-inflight", "200"], "stream_interval: 4\n"),
        (["--max-inflight", "200", "--stream-interval", "1"], ""),
        (["--stream-interval", "10"], "stream_interval: 10\n"),
    ],
)
def test_many_streams_send_several_tokens_at_a_time(place: Place, more: list[str], line: str) -> None:
    write_config(place.root / "engine", CHECKPOINT)
    model = write_llmapi_model(place.root / "nvidia")
    assert place.run("--flavour", "llmapi", "--llmapi-model", str(model), *more) == 0
    settings = (place.root / "model_repository" / "tensorrt_llm" / "1" / "model.yaml").read_text()
    assert ("stream_interval" in settings) == bool(line)
    assert line in settings


def test_notes_say_what_nobody_can_decide_for_the_operator(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    write_config(place.root / "engine", ENGINE, {"build_config.max_batch_size": 2048})
    (place.root / "tokenizer" / "generation_config.json").write_text(json.dumps({"eos_token_id": [256, 10]}))
    assert place.run() == 0
    printed = capsys.readouterr().out
    assert "2048 slots are more than the KV cache usually holds" in printed
    assert "lists more end tokens, [10]" in printed
    assert "proxy is not there yet: scripts/build-proxy-plan" in printed


def test_a_template_in_a_file_of_its_own_is_read(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    write_tokenizer_dir(place.root / "tokenizer", None)
    (place.root / "tokenizer" / "chat_template.jinja").write_text(CHAT)
    assert place.run("--prompt-format", "chat") == 0
    assert "<user>What is the capital of France?<assistant>" in capsys.readouterr().out


def test_the_end_token_is_the_tokenizers(place: Place) -> None:
    assert END == "<|end|>"
    assert place.run("--end-id", "10", "--pad-id", "0") == 0
    scheduler = place.parameters("scheduler")
    assert (scheduler["end_id"], scheduler["pad_id"]) == ("10", "0")
