from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import service_pb2
from tritonclient.utils import np_to_triton_dtype

from ssjf.core.errors import InvalidRequest
from ssjf.service.engine.llmapi import LlmapiAdapter
from ssjf.service.engine.wire import to_bytes
from ssjf.service.intake import read_rows
from ssjf.service.messages import Call, EngineRequest, Generation
from ssjf.service.settings import ServiceSettings

ADAPTER = LlmapiAdapter("tensorrt_llm")


def a_row(**tensors: Any) -> Generation:
    given = {
        "text_input": np.array([[b"hello"]], dtype=np.object_), "max_tokens": np.array([[8]], np.int32), **tensors,
    }  # fmt: skip
    (row,) = read_rows(Call("", {k: v for k, v in given.items() if v is not None}, {}, 0, 0.0), ServiceSettings(), 10)
    return row


def words(*texts: bytes) -> Any:
    return np.array([texts], dtype=np.object_)


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("beam_width", {"beam_width": np.array([[2]], np.int32)}),
    ("num_return_sequences", {"num_return_sequences": np.array([[3]], np.int32)}),
    ("bad_words", {"bad_words": words(b"no")}),
    (
        "embedding_bias_words",
        {"embedding_bias_words": words(b"no"), "embedding_bias_weights": np.array([[1.0]], np.float32)},
    ),
    ("repetition_penalty", {"repetition_penalty": np.array([[1.1]], np.float32)}),
    ("length_penalty", {"length_penalty": np.array([[2.0]], np.float32)}),
    ("min_tokens", {"min_tokens": np.array([[5]], np.int32)}),
    ("end_id", {"end_id": np.array([[2]], np.int32)}),
    ("return_log_probs", {"return_log_probs": np.array([[True]])}),
    ("return_context_logits", {"return_context_logits": np.array([[True]])}),
    ("lora_task_id", {"lora_task_id": np.array([[1]], np.uint64)}),
    ("lora_weights", {"lora_weights": np.ones((1, 2, 2), np.float16)}),
    ("guided_decoding_guide", {"guided_decoding_guide": words(b"{}")}),
    ("text_input", {"text_input": None, "input_ids": np.array([[1]], np.int32)}),
]


@pytest.mark.parametrize(("field", "tensors"), REFUSED)
def test_what_it_has_no_tensor_for_is_named(field: str, tensors: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ADAPTER.check(a_row(**tensors))
    assert caught.value.field == field


def test_neutral_values_pass_and_are_not_sent() -> None:
    row = a_row(
        beam_width=np.array([[1]], np.int32),
        repetition_penalty=np.array([[1.0]], np.float32),
        end_id=np.array([[-1]], np.int32),
        pad_id=np.array([[2]], np.int32),
        min_tokens=np.array([[1]], np.int32),
        return_log_probs=np.array([[False]]),
        bad_words=words(b""),
    )
    ADAPTER.check(row)
    message = ADAPTER.request_message(a_request(row))
    assert [entry.name for entry in message.inputs] == [
        "text_input", "streaming", "sampling_param_max_tokens", "sampling_param_exclude_input_from_output",
        "return_finish_reason",
    ]  # fmt: skip


def a_request(row: Generation) -> EngineRequest:
    return EngineRequest(
        "our-id", np.array([1], np.int32), 8, True, (), 1, row.engine_inputs, "<user>hello", {"a": "b"}
    )


def test_a_request_has_no_batch_dimension_and_upstreams_names() -> None:
    row = a_row(
        temperature=np.array([[0.5]], np.float32), top_k=np.array([[4]], np.int32), seed=np.array([[7]], np.uint64)
    )
    message = ADAPTER.request_message(a_request(row))
    sent = {
        entry.name: (entry.datatype, list(entry.shape), raw)
        for entry, raw in zip(message.inputs, message.raw_input_contents, strict=True)
    }
    assert sent["text_input"] == ("BYTES", [1], b"\x0b\x00\x00\x00<user>hello")
    assert sent["sampling_param_temperature"] == ("FP32", [1], np.float32(0.5).tobytes())
    assert sent["sampling_param_top_k"] == ("INT32", [1], np.int32(4).tobytes())
    assert sent["sampling_param_seed"] == ("UINT64", [1], np.uint64(7).tobytes())
    assert (message.id, message.parameters["a"].string_param) == ("our-id", "b")
    assert not message.outputs


def a_response(**outputs: Any) -> Any:
    message = service_pb2.ModelInferResponse()
    for name, value in outputs.items():
        message.outputs.add(name=name, datatype=np_to_triton_dtype(value.dtype), shape=value.shape)
        message.raw_output_contents.append(to_bytes(value))
    return message


def flat(*values: Any) -> Any:
    return np.array(values, dtype=np.object_)


def test_responses_carry_the_text_so_far_the_reason_and_metrics_as_numbers() -> None:
    chunk = ADAPTER.read_chunk(
        a_response(
            text_output=flat("héllo".encode()),
            finish_reason=flat(b"length"),
            kv_cache_reused_block=flat(b"3"),
            arrival_time_ns=flat(b"1763830000123456789"),
            acceptance_rate=flat(b"nonsense"),
            num_output_tokens=np.array([5], np.int32),
        )
    )
    assert chunk is not None
    assert (chunk.text, chunk.finish, chunk.output_tokens) == ("héllo", "length", 5)
    assert {name: value.tolist() for name, value in chunk.extras.items()} == {
        "kv_cache_reused_blocks": [[3]], "arrival_time_ns": [[1763830000123456789]],
    }  # fmt: skip


def test_an_unfinished_response_has_no_reason_and_an_empty_one_is_no_chunk() -> None:
    chunk = ADAPTER.read_chunk(a_response(text_output=flat(b"h"), finish_reason=flat(b"None")))
    assert chunk is not None
    assert (chunk.finish, chunk.output_tokens) == (None, None)
    assert ADAPTER.read_chunk(service_pb2.ModelInferResponse()) is None
