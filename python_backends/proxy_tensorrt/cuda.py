"""The few calls of the CUDA runtime that running a plan needs; each failure is a PlanError.

On `cuda.bindings` (package cuda-python), which TensorRT-LLM itself requires, so NVIDIA's -trtllm-python-py3 images have
it. Not on torch, which they have too: that is a large import for a process that only copies a few kilobytes to the
device and back.
"""

from __future__ import annotations

import ctypes
import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proxy_onnx.errors import PlanError

_MODULES = ("cuda.bindings.runtime", "cuda.cudart")  # the second: cuda-python before 12.6


class Cuda:
    """One device. Memory is freed by `free`; a device belongs to a thread only after `activate` on it."""

    def __init__(self, number: int, runtime: Any = None) -> None:
        """`runtime` stands in for NVIDIA's module in tests. Raises PlanError without driver, device or module."""
        self._rt = runtime or _import()
        self._number = number
        self._device: list[int] = []
        self._pinned: list[int] = []
        self._stream: Any = None
        self.activate()

    def activate(self) -> None:
        """Use this device on the calling thread."""
        self._call("cudaSetDevice", self._number)

    def name(self) -> str:
        """As the driver calls the device."""
        properties = self._call("cudaGetDeviceProperties", self._number)
        return str(properties.name.decode())

    def compute_capability(self) -> str:
        """As in `9.0`."""
        kinds = self._rt.cudaDeviceAttr
        major = self._call("cudaDeviceGetAttribute", kinds.cudaDevAttrComputeCapabilityMajor, self._number)
        minor = self._call("cudaDeviceGetAttribute", kinds.cudaDevAttrComputeCapabilityMinor, self._number)
        return f"{major}.{minor}"

    def stream(self) -> int:
        """The one stream that copies go through, as a number that TensorRT takes."""
        if self._stream is None:
            self._stream = self._call("cudaStreamCreate")
        return int(self._stream)

    def allocate(self, count: int) -> int:
        """Address of `count` bytes on the device."""
        address = int(self._call("cudaMalloc", count))
        self._device.append(address)
        return address

    def pinned(self, count: int) -> NDArray[np.uint8]:
        """`count` bytes of host memory that cannot be paged out, so that copies need no second one."""
        address = int(self._call("cudaHostAlloc", count, 0))
        self._pinned.append(address)
        return np.ctypeslib.as_array((ctypes.c_uint8 * count).from_address(address))

    def upload(self, device: int, host: NDArray[Any]) -> None:
        """Queue a copy of all of `host` to the device."""
        self._copy(device, host.ctypes.data, host.nbytes, "cudaMemcpyHostToDevice")

    def download(self, host: NDArray[Any], device: int) -> None:
        """Queue a copy from the device that fills `host`."""
        self._copy(host.ctypes.data, device, host.nbytes, "cudaMemcpyDeviceToHost")

    def wait(self) -> None:
        """Block until all that was queued is done; an error of any of it comes out here."""
        self._call("cudaStreamSynchronize", self._stream)

    def free(self) -> None:
        """Give all memory and the stream back; safe to call twice."""
        self.activate()
        while self._device:
            self._call("cudaFree", self._device.pop())
        while self._pinned:
            self._call("cudaFreeHost", self._pinned.pop())
        if self._stream is not None:
            stream, self._stream = self._stream, None
            self._call("cudaStreamDestroy", stream)

    def _copy(self, target: int, source: int, count: int, kind: str) -> None:
        self.stream()
        self._call("cudaMemcpyAsync", target, source, count, getattr(self._rt.cudaMemcpyKind, kind), self._stream)

    def _call(self, function: str, *arguments: Any) -> Any:
        error, *values = getattr(self._rt, function)(*arguments)
        if int(error) != 0:
            raise PlanError(f"{function} failed on GPU {self._number}: {getattr(error, 'name', error)}")
        return values[0] if values else None


def _import() -> Any:
    for name in _MODULES:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise PlanError(f"none of {', '.join(_MODULES)} can be imported; in NVIDIA's images it is there, else: cuda-python")
