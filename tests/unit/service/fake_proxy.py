"""A proxy's Triton on loopback: real gRPC, one fixed distribution, held back while its gate is closed."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import numpy as np
from tritonclient.grpc import service_pb2

from ssjf.service.engine.wire import to_bytes
from tests.unit.proxy import small_proxy
from tests.unit.service.fake_triton import SERVICE

BIN = 2
MEAN = small_proxy.metadata().bin_means[BIN]


class FakeProxy:
    """`asked` questions came, `left` were taken back by their client.

    `broken`: answers are errors; `garbled`: they have another output than a distribution.
    """

    def __init__(self) -> None:
        self.asked = self.left = 0
        self.broken = self.garbled = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.url = ""
        self._server = grpc.aio.server()

    async def start(self) -> FakeProxy:
        handler = grpc.unary_unary_rpc_method_handler(
            self._infer, service_pb2.ModelInferRequest.FromString, service_pb2.ModelInferResponse.SerializeToString
        )
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"ModelInfer": handler}),))
        self.url = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()
        return self

    async def stop(self) -> None:
        await self._server.stop(None)

    async def _infer(self, _request: Any, context: Any) -> Any:
        self.asked += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.left += 1
            raise
        if self.broken:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the stub is not healthy")
        distribution = np.zeros((1, len(small_proxy.metadata().bin_means)), np.float32)
        distribution[0, BIN] = 1.0
        response = service_pb2.ModelInferResponse(raw_output_contents=[to_bytes(distribution)])
        shape = (0, 7) if self.garbled else distribution.shape
        response.outputs.add(name="length_distribution", datatype="FP32", shape=shape)
        return response
