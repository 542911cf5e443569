from __future__ import annotations

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from ssjf import tensors
from ssjf_client import Client, GenerateRequest, InvalidRequest, ServerError, infer_inputs
from ssjf_client.wire import checked_door, read_part
from tests.unit.client.fake_triton import FakeTriton, numbers, response

FULL = GenerateRequest(
    "Grüße 🌍",
    max_tokens=9,
    stop_words=["Ende", "终"],
    bad_words=["x"],
    temperature=0.5,
    top_p=0.9,
    top_k=40,
    seed=2**63 + 1,
    min_tokens=2,
    repetition_penalty=1.1,
    presence_penalty=0.2,
    frequency_penalty=-0.3,
    request_id="mine",
    priority_class=0,
    tenant="blue",
    deadline_ms=900,
    expected_tokens=5,
    timeout_s=12.5,
)


def test_every_field_arrives_as_the_contract_has_it(triton: FakeTriton, client: Client) -> None:
    client.generate(FULL)
    got = triton.wait_for(1)
    assert got.message.model_name == "scheduler"
    assert got.message.id == "mine"
    assert got.text == "Grüße 🌍"
    assert got.tensor("stop_words").tolist() == [[b"Ende", "终".encode()]]
    assert got.tensor("bad_words").shape == (1, 1)
    expected = {
        "max_tokens": 9,
        "temperature": np.float32(0.5),
        "top_p": np.float32(0.9),
        "top_k": 40,
        "seed": 2**63 + 1,
        "min_tokens": 2,
        "repetition_penalty": np.float32(1.1),
        "presence_penalty": np.float32(0.2),
        "frequency_penalty": np.float32(-0.3),
        "stream": False,
        "exclude_input_in_output": True,
        "return_num_input_tokens": True,
        "return_num_output_tokens": True,
    }
    for name, value in expected.items():
        assert got.tensor(name).shape == (1, 1), name
        assert got.tensor(name)[0, 0] == value, name
    assert {i.name for i in got.message.inputs} == set(expected) | {"text_input", "stop_words", "bad_words"}


def test_parameters_arrive_with_triton_s_own(triton: FakeTriton, client: Client) -> None:
    client.generate(FULL)
    got = triton.wait_for(1)
    expected = {
        "priority_class": 0,
        "tenant": "blue",
        "deadline_ms": 900,
        "expected_tokens": 5,
        "timeout": 12_500_000,
        "triton_enable_empty_final_response": True,
    }
    assert {name: got.parameter(name) for name in got.message.parameters} == expected


def test_what_is_left_open_is_not_sent(triton: FakeTriton) -> None:
    with Client(triton.url, timeout_s=None) as client:
        client.generate("hi")
    got = triton.wait_for(1)
    assert {i.name for i in got.message.inputs} == {
        "text_input",
        "max_tokens",
        "stream",
        "exclude_input_in_output",
        "return_num_input_tokens",
        "return_num_output_tokens",
    }
    assert set(got.message.parameters) == {"triton_enable_empty_final_response"}
    assert len(got.message.id) == 32


def test_inputs_match_the_server_s_table_of_tensors() -> None:
    table = {t.name: t for t in (tensors.TEXT_INPUT, tensors.MAX_TOKENS, *tensors.CLIENT_OPTIONAL_INPUTS)}
    for tensor in infer_inputs(FULL, stream=True):
        spec = table[tensor.name()]
        assert tensor.datatype() == {"STRING": "BYTES"}.get(spec.dtype, spec.dtype)
        assert len(tensor.shape()) == 1 + len(spec.dims)
        assert all(dim in (-1, got) for dim, got in zip(spec.dims, tensor.shape()[1:], strict=True))


def test_a_response_is_read_whole() -> None:
    part = read_part(response(numbers(3), text="né", final=True).infer_response)
    assert (part.text, part.output_tokens, part.input_tokens, part.predicted_tokens) == ("né", 3, 7, 42)
    assert part.queue_time_s == 1.5
    assert part.final
    assert not part.empty


def test_a_response_without_numbers_or_flags_is_read_as_not_said() -> None:
    answer = response(text="a").infer_response
    del answer.parameters["triton_final_response"]
    part = read_part(answer)
    assert (part.text, part.output_tokens, part.queue_time_s, part.final) == ("a", None, None, False)


def test_several_texts_of_one_response_are_joined() -> None:
    answer = service_pb2.ModelInferResponse()
    answer.outputs.add(name="text_output", datatype="BYTES", shape=[1, 2])
    answer.raw_output_contents.append(b"\x01\0\0\0a\x01\0\0\0b")
    assert read_part(answer).text == "ab"


def test_a_response_that_breaks_the_contract_is_a_server_error() -> None:
    answer = service_pb2.ModelInferResponse(model_name="scheduler")
    answer.outputs.add(name="text_output", datatype="BYTES", shape=[1, 1])
    answer.raw_output_contents.append(b"\x01\0\0\0\xff")
    with pytest.raises(ServerError, match="'scheduler' cannot be read"):
        read_part(answer)


def test_an_unknown_door_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequest, match="door='back': must be one of scheduler, ensemble, unary"):
        checked_door("back")
