"""The surface of TensorRT and of the CUDA runtime that we use, on the CPU; device memory is host memory.

A fake plan is JSON: what tensors and profile it has, and how its answers are off. A row's distribution puts all its
probability on bin (first token mod K).
"""

# ruff: noqa: N802, N815, ARG005 - the names are NVIDIA's
from __future__ import annotations

import ctypes
import enum
import json
from types import SimpleNamespace
from typing import Any

import numpy as np

GOOD = {"bins": 4, "rows": 64, "length": 12}


def plan(**changes: Any) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


class Error(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorInvalidValue = 1


class FakeCudart:
    """The CUDA runtime as cuda.bindings gives it: every function returns (error, values...)."""

    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    cudaDeviceAttr = SimpleNamespace(cudaDevAttrComputeCapabilityMajor=75, cudaDevAttrComputeCapabilityMinor=76)

    def __init__(self, gpu: str = "NVIDIA Test", failing: str = "") -> None:
        self.gpu = gpu
        self.failing = failing  # the function that fails
        self.memory: dict[int, Any] = {}
        self.streams = 0

    def cudaSetDevice(self, number: int) -> tuple[Any, ...]:
        return (Error.cudaErrorInvalidValue if number > 0 else Error.cudaSuccess,)

    def cudaGetDeviceProperties(self, number: int) -> tuple[Any, ...]:
        return Error.cudaSuccess, SimpleNamespace(name=self.gpu.encode())

    def cudaDeviceGetAttribute(self, kind: int, number: int) -> tuple[Any, ...]:
        return Error.cudaSuccess, {75: 9, 76: 0}[kind]

    def cudaStreamCreate(self) -> tuple[Any, ...]:
        self.streams += 1
        return Error.cudaSuccess, 7

    def cudaStreamDestroy(self, stream: int) -> tuple[Any, ...]:
        self.streams -= 1
        return (Error.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any, ...]:
        return (Error.cudaErrorInvalidValue if self.failing == "synchronize" else Error.cudaSuccess,)

    def cudaMalloc(self, count: int) -> tuple[Any, ...]:
        if self.failing == "malloc":
            return Error.cudaErrorMemoryAllocation, None
        buffer = (ctypes.c_uint8 * count)()
        self.memory[ctypes.addressof(buffer)] = buffer
        return Error.cudaSuccess, ctypes.addressof(buffer)

    def cudaHostAlloc(self, count: int, flags: int) -> tuple[Any, ...]:
        return self.cudaMalloc(count)

    def cudaFree(self, address: int) -> tuple[Any, ...]:
        del self.memory[address]
        return (Error.cudaSuccess,)

    cudaFreeHost = cudaFree

    def cudaMemcpyAsync(self, target: int, source: int, count: int, kind: int, stream: int) -> tuple[Any, ...]:
        ctypes.memmove(target, source, count)
        return (Error.cudaSuccess,)


class FakeContext:
    def __init__(self, made_of: dict[str, Any]) -> None:
        self.made_of = made_of
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return not self.made_of.get("refuses_shapes")

    def execute_async_v3(self, stream: int) -> bool:
        rows, length = self.shapes["input_ids"]
        assert self.shapes["attention_mask"] == (rows, length)
        ids = self._tensor("input_ids", rows * length, np.int32).reshape(rows, length)
        output = self._tensor("length_distribution", rows * self.made_of["bins"], np.float32).reshape(rows, -1)
        output[:] = 0
        output[np.arange(rows), (ids[:, 0] + self.made_of.get("shift", 0)) % self.made_of["bins"]] = 1
        if self.made_of.get("nan"):
            output[:] = np.nan
        return not self.made_of.get("fails")

    def _tensor(self, name: str, count: int, kind: Any) -> Any:
        return np.ctypeslib.as_array((ctypes.c_uint8 * (4 * count)).from_address(self.addresses[name])).view(kind)


class FakeEngine:
    num_io_tensors = 3

    def __init__(self, made_of: dict[str, Any]) -> None:
        self.made_of = made_of
        self._names = made_of.get("names", ["input_ids", "attention_mask", "length_distribution"])

    def get_tensor_name(self, index: int) -> str:
        return str(self._names[index])

    def get_tensor_mode(self, name: str) -> str:
        return "output" if name == "length_distribution" else "input"

    def get_tensor_dtype(self, name: str) -> str:
        return str(self.made_of.get("dtype", "float" if name == "length_distribution" else "int32"))

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, self.made_of["bins"] if name == "length_distribution" else -1)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [(1, 1), (8, 8), (self.made_of["rows"], self.made_of["length"])]

    def create_execution_context(self) -> FakeContext | None:
        return None if self.made_of.get("no_context") else FakeContext(self.made_of)


class FakeTrt:
    """The module `tensorrt`. `built` is what its builder makes, None for a failure."""

    __name__ = "tensorrt"

    def __init__(self, version: str = "10.13.3.9", built: bytes | None = None) -> None:
        self.__version__ = version
        self.built = built
        self.flags: list[str] = []
        self.profile: dict[str, Any] = {}
        self.TensorIOMode = SimpleNamespace(INPUT="input", OUTPUT="output")
        self.DataType = SimpleNamespace(INT32="int32", FLOAT="float")
        self.Logger = type("Logger", (), {"WARNING": 2, "__init__": lambda _self, _level: None})
        self.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
        self.BuilderFlag = SimpleNamespace(VERSION_COMPATIBLE="version compatible")

    def Runtime(self, logger: Any) -> Any:
        def load(content: bytes) -> FakeEngine | None:
            made_of = json.loads(content)
            return None if made_of.get("unloadable") else FakeEngine(made_of)

        return SimpleNamespace(deserialize_cuda_engine=load, engine_host_code_allowed=False)

    def OnnxParser(self, network: Any, logger: Any) -> Any:
        return SimpleNamespace(
            parse=lambda content: not content.startswith(b"bad"), num_errors=1, get_error=lambda index: "no such op"
        )

    def Builder(self, logger: Any) -> Any:
        def create_network(flags: int) -> str:
            self.flags.append(f"network {flags}")
            return "network"

        config = SimpleNamespace(set_flag=self.flags.append, add_optimization_profile=lambda profile: 0)
        profile = SimpleNamespace(set_shape=lambda name, *shapes: self.profile.update({name: shapes}))
        return SimpleNamespace(
            create_network=create_network,
            create_builder_config=lambda: config,
            create_optimization_profile=lambda: profile,
            build_serialized_network=lambda network, made: self.built,
        )
