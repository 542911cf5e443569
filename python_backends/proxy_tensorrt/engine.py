"""A TensorRT plan, its context and buffers."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proxy_onnx.errors import PlanError
from proxy_onnx.tensors import INPUTS, OUTPUT

from .cuda import Cuda
from .plan import REMEDY, Machine, Profile


def import_library(name: str) -> Any:
    """TensorRT's Python package `tensorrt` or `tensorrt_rtx`. Raises PlanError."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise PlanError(f"the plan needs the Python package {name}, which cannot be imported: {error}") from error


def machine(trt: Any, cuda: Cuda) -> Machine:
    """What plans built by this TensorRT on this device are for."""
    return Machine(trt.__name__, str(trt.__version__), cuda.name(), cuda.compute_capability())


class TensorRtRuntime:
    """One plan on one device; satisfies proxy_onnx's Runtime. Calls block; one at a time, on any thread.

    Buffers for the largest batch that the profile allows are made once (64 rows of 128 tokens: 64 kB of ids and mask).
    No CUDA graphs: there would be one for every number of rows and every bucket.
    """

    def __init__(self, plan: bytes, profile: Profile, bins: int, trt: Any, cuda: Cuda) -> None:
        """Deserialise `plan`. Raises PlanError when TensorRT cannot, or when its tensors are not the proxy's."""
        self._profile = profile
        self._bins = bins
        self._trt = trt
        self._cuda = cuda
        self._closed = False
        cuda.activate()
        self._logger = trt.Logger(trt.Logger.WARNING)
        self._runtime = trt.Runtime(self._logger)
        self._runtime.engine_host_code_allowed = True  # a version-compatible plan brings its own runtime along
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise PlanError(f"TensorRT {trt.__version__} cannot load the plan (its log says why); {REMEDY}")
        self._check_tensors()
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise PlanError("TensorRT cannot make an execution context: is the GPU's memory full?")
        self._allocate()

    def run(self, ids: NDArray[np.int32], mask: NDArray[np.int32]) -> NDArray[np.float32]:
        """Distributions FP32 [rows, K] for ids and mask INT32 [rows, length]. Raises PlanError."""
        rows, length = ids.shape
        if rows > self._profile.max_rows or length > self._profile.max_length:
            raise PlanError(
                f"a batch has {rows} rows of {length} tokens; "
                f"the plan takes at most {self._profile.max_rows} of {self._profile.max_length}"
            )
        self._cuda.activate()
        for name, values in zip(INPUTS, (ids, mask), strict=True):
            host = self._hosts[name].view(np.int32)[: ids.size]
            host[:] = values.reshape(-1)
            self._cuda.upload(self._devices[name], host)
            if not self._context.set_input_shape(name, (rows, length)):
                raise PlanError(f"TensorRT refuses {name} of shape [{rows}, {length}]; {REMEDY}")
        if not self._context.execute_async_v3(self._cuda.stream()):
            raise PlanError(f"TensorRT could not run a batch of {rows} rows of {length} tokens (its log says why)")
        output = self._hosts[OUTPUT].view(np.float32)[: rows * self._bins]
        self._cuda.download(output, self._devices[OUTPUT])
        self._cuda.wait()
        return output.reshape(rows, self._bins).copy()

    def close(self) -> None:
        """Free context, engine and memory, in this order; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self._hosts.clear()
        self._context = self._engine = self._runtime = None
        self._cuda.free()

    def _check_tensors(self) -> None:
        engine, modes, types = self._engine, self._trt.TensorIOMode, self._trt.DataType
        found = {}
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            found[name] = (
                engine.get_tensor_mode(name),
                engine.get_tensor_dtype(name),
                tuple(engine.get_tensor_shape(name))[-1],
            )
        expected = dict.fromkeys(INPUTS, (modes.INPUT, types.INT32, -1))
        expected[OUTPUT] = (modes.OUTPUT, types.FLOAT, self._bins)
        if found != expected:
            raise PlanError(f"the plan's tensors are {found}; expected {expected}; {REMEDY}")
        largest = tuple(engine.get_tensor_profile_shape(INPUTS[0], 0)[2])
        if largest != (self._profile.max_rows, self._profile.max_length):
            raise PlanError(f"the plan's profile ends at {list(largest)}, plan.json says otherwise; {REMEDY}")

    def _allocate(self) -> None:
        cells = self._profile.max_rows * self._profile.max_length
        sizes = dict.fromkeys(INPUTS, 4 * cells) | {OUTPUT: 4 * self._profile.max_rows * self._bins}
        self._hosts = {name: self._cuda.pinned(size) for name, size in sizes.items()}
        self._devices = {name: self._cuda.allocate(size) for name, size in sizes.items()}
        for name, address in self._devices.items():
            if not self._context.set_tensor_address(name, address):
                raise PlanError(f"TensorRT refuses the buffer of {name}; {REMEDY}")
