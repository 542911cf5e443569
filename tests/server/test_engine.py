"""The CPU engine behind a real tritonserver: its tensors, streaming, cancellation, and what happens when it dies.

Starts a server with the engine model alone; the launcher here is a minimal one of its own.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tokenizers import Tokenizer
from tritonclient.utils import np_to_triton_dtype

from ssjf_tools.assets.smollm2 import build_smollm2
from ssjf_tools.bootstrap import CHECKOUT
from ssjf_tools.serve.layout import lay_out_backends, wheel_triton

pytestmark = [pytest.mark.server, pytest.mark.timeout(300)]

START_S = 120.0
SLOTS = 4
CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
GREEDY: dict[str, Any] = {"temperature": np.float32(0.0)}


def until(condition: Callable[[], bool], seconds: float, what: str) -> float:
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, f"no {what} within {seconds:g} s"
        time.sleep(0.02)
    return time.monotonic() - begun


def children(pid: int) -> list[int]:
    """Process ids whose parent is `pid`, zombies left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if int(parent) == pid and state != "Z":
                found.append(int(entry.name))
    return found


def alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@dataclass
class Answer:
    """What a request got: tokens by row, the number of responses, an error."""

    rows: dict[int, list[int]] = field(default_factory=dict)
    responses: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None
    finals: int = 0


class Stream:
    """One request on a connection of its own."""

    def __init__(self, url: str, rows: list[list[int]], max_tokens: int, request_id: str = "", **inputs: Any):
        self._client = triton.InferenceServerClient(url)
        self._events: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
        self._client.start_stream(lambda result, error: self._events.put((result, error)))
        width = max(map(len, rows))
        arrays = {
            "input_ids": np.array([row + [0] * (width - len(row)) for row in rows], np.int32),
            "input_lengths": np.array([[len(row)] for row in rows], np.int32),
            "request_output_len": np.full((len(rows), 1), max_tokens, np.int32),
        }
        arrays |= {
            name: np.full((len(rows), 1), value) if np.ndim(value) == 0 else value for name, value in inputs.items()
        }
        tensors = [
            triton.InferInput(name, array.shape, np_to_triton_dtype(array.dtype)) for name, array in arrays.items()
        ]
        for tensor in tensors:
            tensor.set_data_from_numpy(arrays[tensor.name()])
        self._client.async_stream_infer(
            "tensorrt_llm", tensors, request_id=request_id, enable_empty_final_response=True
        )
        self.answer = Answer()

    def next(self, seconds: float = 60) -> bool:
        """Takes one response in; says whether the request goes on."""
        result, error = self._events.get(timeout=seconds)
        if error is not None:
            self.answer.error = error.message()
            return False
        response = result.get_response()
        outputs = {output.name: result.as_numpy(output.name) for output in response.outputs}
        if outputs:
            self.answer.responses.append(outputs)
            row = int(outputs["batch_index"][0, 0])
            self.answer.rows.setdefault(row, []).extend(outputs["output_ids"][0, 0].tolist())
        final = bool(response.parameters["triton_final_response"].bool_param)
        self.answer.finals += final
        return not final

    def finish(self) -> Answer:
        try:
            while self.next():
                pass
        finally:
            self.close()
        return self.answer

    def close(self, cancel: bool = False) -> None:
        self._client.stop_stream(cancel_requests=cancel)
        self._client.close()


class EngineServer:
    """tritonserver with the engine model alone."""

    def __init__(self, folder: Path):
        assets = Path(os.environ.get("SSJF_ASSETS") or CHECKOUT / ".assets")
        build_smollm2(assets / "smollm2", print)
        self.tokenizer = Tokenizer.from_file(str(assets / "smollm2" / "tokenizer.json"))
        found = wheel_triton()
        lay_out_backends(folder / "backends", found, CHECKOUT / "python_backends")
        http, grpc = _free_ports(2)
        self.url = f"127.0.0.1:{grpc}"
        self._ready_url = f"http://127.0.0.1:{http}/v2/health/ready"
        self.shm_prefix = f"engine-test-{grpc}-"
        environment = {
            **os.environ,
            "LD_LIBRARY_PATH": os.pathsep.join(map(str, found.libraries)),
            "PATH": os.pathsep.join([str(Path(sys.prefix) / "bin"), os.environ["PATH"]]),
            "SSJF_ASSETS": str(assets),
            "SSJF_MAX_NUM_SEQS": str(SLOTS),
            "SSJF_NUM_KV_BLOCKS": "256",
        }
        self.log = folder / "server.log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [
                    str(found.server),
                    f"--model-repository={CHECKOUT / 'model_repository'}",
                    f"--backend-directory={folder / 'backends'}",
                    "--model-config-name=cpu",
                    "--model-control-mode=explicit",
                    "--load-model=tensorrt_llm",
                    "--http-address=127.0.0.1",
                    "--grpc-address=127.0.0.1",
                    f"--http-port={http}",
                    f"--grpc-port={grpc}",
                    "--allow-metrics=false",
                    "--backend-config=openvino_llm,thread-pool-size=128",
                    "--backend-config=openvino_llm,stub-timeout-seconds=120",
                    f"--backend-config=openvino_llm,shm-region-prefix-name={self.shm_prefix}",
                ],
                env=environment,
                stdout=output,
                stderr=output,
            )
        until(lambda: self._ready() or self.process.poll() is not None, START_S, "start")
        assert self.process.poll() is None, self.log.read_text(errors="replace")

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(self._ready_url, timeout=2) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    def prompt(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(CHAT.format(text)).ids)

    def ask(self, text: str, max_tokens: int = 16, **inputs: Any) -> Answer:
        return Stream(self.url, [self.prompt(text)], max_tokens, **inputs).finish()

    def stream(self, text: str, max_tokens: int = 16, request_id: str = "", **inputs: Any) -> Stream:
        return Stream(self.url, [self.prompt(text)], max_tokens, request_id, streaming=np.True_, **inputs)

    def stub(self) -> int:
        (stub,) = children(self.process.pid)
        return stub

    def worker(self) -> int:
        (worker,) = children(self.stub())
        return worker

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise

    def shared_memory(self) -> list[Path]:
        return list(Path("/dev/shm").glob(f"{self.shm_prefix}*"))


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(found.getsockname()[1]) for found in sockets]
    for found in sockets:
        found.close()
    return ports


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineServer]:
    server = EngineServer(tmp_path_factory.mktemp("engine"))
    yield server
    worker = server.worker()
    server.stop()
    assert not alive(worker), "the inference process outlived the server"
    assert server.shared_memory() == []


def test_streamed_tokens_are_the_unstreamed_answer(engine: EngineServer) -> None:
    whole = engine.ask("What is the capital of France?", **GREEDY)
    pieces = engine.stream("What is the capital of France?", **GREEDY).finish()
    assert whole.rows == pieces.rows
    assert (len(whole.responses), whole.finals, pieces.finals) == (1, 1, 1)
    assert len(pieces.responses) > 1
    assert "Paris" in engine.tokenizer.decode(whole.rows[0])
    assert 2 not in whole.rows[0]  # the end id is not part of the answer


def test_a_response_has_the_shapes_of_the_contract(engine: EngineServer) -> None:
    (response,) = engine.ask("Count to five.", 4, return_log_probs=np.True_, **GREEDY).responses
    shapes = {name: array.shape for name, array in response.items()}
    assert shapes == {
        "output_ids": (1, 1, 4),
        "sequence_length": (1, 1),
        "cum_log_probs": (1, 1),
        "output_log_probs": (1, 1, 4),
        "sequence_index": (1, 1),
        "batch_index": (1, 1),
        "num_input_tokens": (1, 1),
        "num_output_tokens": (1, 1),
    }
    assert response["num_input_tokens"] == len(engine.prompt("Count to five."))
    assert response["cum_log_probs"] == pytest.approx(response["output_log_probs"].sum(), rel=1e-5)


def test_the_prompt_is_echoed_when_it_is_not_excluded(engine: EngineServer) -> None:
    answer = engine.ask("Count to five.", 4, exclude_input_in_output=np.False_, **GREEDY)
    assert answer.rows[0][:-4] == engine.prompt("Count to five.")


def test_rows_of_a_request_are_generations_of_their_own(engine: EngineServer) -> None:
    texts = ["What is the capital of France?", "Count to five.", "Name three fruits."]
    alone = [engine.ask(text, **GREEDY).rows[0] for text in texts]
    together = Stream(engine.url, [engine.prompt(text) for text in texts], 16, **GREEDY).finish()
    assert together.rows == dict(enumerate(alone))
    assert together.finals == 1


def test_greedy_answers_do_not_depend_on_the_company(engine: EngineServer) -> None:
    texts = ["What is the capital of France?", "Count to five.", "Name three fruits.", "Why is the sky blue?"]
    alone = [engine.ask(text, **GREEDY).rows[0] for text in texts]
    crowd = [engine.stream(text, **GREEDY) for text in texts * 4]
    assert [stream.finish().rows[0] for stream in crowd] == alone * 4


def test_a_stop_word_ends_the_answer_and_stays_in_it(engine: EngineServer) -> None:
    whole = engine.ask("What is the capital of France?", **GREEDY).rows[0]
    word = np.array([[whole[2:4], [2, -1]]], np.int32)
    assert engine.ask("What is the capital of France?", stop_words_list=word, **GREEDY).rows[0] == whole[:4]


@pytest.mark.parametrize(
    ("named", "inputs"),
    [
        ("temperature is nan", {"temperature": np.float32("nan")}),
        ("temperature is -1", {"temperature": np.float32(-1)}),
        ("runtime_top_p is 1.5", {"runtime_top_p": np.float32(1.5)}),
        ("beam_width is 2", {"beam_width": np.int32(2)}),
        ("num_return_sequences is 3", {"num_return_sequences": np.int32(3)}),
        ("bad_words_list", {"bad_words_list": np.array([[[5], [1]]], np.int32)}),
        ("request_output_len is 0", {"max_tokens": 0}),
        ("request_output_len is 9000", {"max_tokens": 9000}),
        ("temperature", {"temperature": np.int32(1)}),  # wrong type: Triton's own error
        ("seed", {"seed": np.zeros((1, 2), np.uint64)}),  # wrong shape
        ("request id is empty", {"stop": np.True_}),
    ],
)
def test_a_bad_input_fails_alone_and_is_named(engine: EngineServer, named: str, inputs: dict[str, Any]) -> None:
    other = engine.stream("Count to five.", 8, end_id=np.int32(-1))
    answer = engine.ask("Count to five.", **{"max_tokens": 4, **inputs})
    assert answer.error is not None
    assert named in answer.error
    assert len(other.finish().rows[0]) == 8


def test_token_ids_outside_the_vocabulary_are_refused(engine: EngineServer) -> None:
    answer = Stream(engine.url, [[5, 49152]], 4).finish()
    assert answer.error is not None
    assert "input_ids[1] is 49152, expected 0 to 49151" in answer.error


def test_stop_ends_the_request_of_that_id(engine: EngineServer) -> None:
    running = engine.stream("Write a long story.", 800, "story", end_id=np.int32(-1))
    assert running.next()
    duplicate = engine.stream("Count to five.", 4, "story").finish()
    assert duplicate.error is not None
    assert "'story'" in duplicate.error
    stop = Stream(engine.url, [[1]], 1, "story", stop=np.True_).finish()
    assert (stop.error, stop.responses, stop.finals) == (None, [], 1)
    ended = running.finish()
    assert ended.finals == 1
    assert 0 < len(ended.rows[0]) < 800


def test_a_client_that_leaves_frees_its_slot(engine: EngineServer) -> None:
    running = [engine.stream("Write a long story.", 2000, end_id=np.int32(-1)) for _ in range(SLOTS)]
    for stream in running:
        assert stream.next()
    waiting = engine.stream("Count to five.", 2)
    with pytest.raises(queue.Empty):
        waiting.next(0.5)  # all slots are taken
    begun = time.monotonic()
    running[0].close(cancel=True)
    waiting.next()
    seconds = time.monotonic() - begun
    print(f"\nfrom leaving to the next request's first token: {1000 * seconds:.0f} ms")
    for stream in running[1:]:
        stream.close(cancel=True)
    waiting.finish()
    assert seconds < 1.5  # 100 ms when the machine has nothing else to do


@pytest.mark.parametrize(("harm", "reason"), [(signal.SIGKILL, "status -9"), (signal.SIGSTOP, "said nothing")])
def test_the_inference_process_comes_back_by_itself(engine: EngineServer, harm: signal.Signals, reason: str) -> None:
    first, stub = engine.worker(), engine.stub()
    running = engine.stream("Write a long story.", 2000, end_id=np.int32(-1))
    assert running.next()
    begun = time.monotonic()
    os.kill(first, harm)
    lost = running.finish()
    assert lost.error is not None
    assert "not at ready state" in lost.error
    assert reason in lost.error
    noticed = time.monotonic() - begun
    refused = engine.ask("Count to five.", 2)
    assert refused.error is None or "not at ready state" in refused.error
    until(lambda: engine.ask("Count to five.", 2).error is None, 60, "answer")
    print(f"\n{harm.name}: noticed after {noticed:.1f} s, back after {time.monotonic() - begun:.1f} s")
    assert engine.worker() != first
    assert engine.stub() == stub


@pytest.mark.parametrize("victim", ["stub", "server"])
def test_nothing_outlives_a_killed_stub_or_server(tmp_path: Path, victim: str) -> None:
    server = EngineServer(tmp_path)
    try:
        stub, worker = server.stub(), server.worker()
        running = server.stream("Write a long story.", 2000, end_id=np.int32(-1))
        assert running.next()
        os.kill(stub if victim == "stub" else server.process.pid, signal.SIGKILL)
        until(lambda: not alive(worker), 10, "end of the inference process")
        until(lambda: not alive(stub), 10, "end of the stub")
        running.close(cancel=True)
    finally:
        server.process.kill()
        server.process.wait()
        for path in server.shared_memory():
            path.unlink()
