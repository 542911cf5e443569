"""Asking the proxy model how long an answer will be, and doing without it when it is broken or slow."""

from __future__ import annotations

import logging
import time
from typing import Any

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from proxy_onnx.contract import LiveMetadata
from proxy_onnx.encode import ProxyEncoder
from ssjf.core.job import LengthPrediction
from ssjf.service.engine.wire import build_request, read_outputs

log = logging.getLogger("ssjf.predictor")

_INFER_METHOD = "/inference.GRPCInferenceService/ModelInfer"
_PAUSE_AFTER_FAILURES = 5
_PAUSE_S = 2.0


class PredictionFailed(Exception):
    """No usable prediction: the caller orders by its running prior."""


class Predictor:
    """The `length_predictor` model over gRPC with a deadline. Used on the event loop only.

    gRPC instead of a BLS call because a BLS call cannot be given up: behind a dead or slow predictor it would hold one
    of the stub's pool threads for ever. After a row of failures the proxy is left alone for two seconds at a time, so
    that requests don't each wait for the same dead process. Distributions are read by the proxy.json that its folder
    holds now: a proxy that was swapped brings its own bin means.
    """

    def __init__(self, url: str, model: str, encoder: ProxyEncoder, metadata: LiveMetadata, timeout_s: float):
        self._model = model
        self._encoder = encoder
        self._metadata = metadata
        self._timeout_s = timeout_s
        self._failures = 0
        self._resume_at = 0.0
        self._channel = grpc.aio.insecure_channel(url)
        self._infer = self._channel.unary_unary(
            _INFER_METHOD,
            request_serializer=service_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=service_pb2.ModelInferResponse.FromString,
        )

    def read(self, distribution: NDArray[np.float32], max_tokens: int) -> LengthPrediction:
        """A distribution over length bins, FP32[K], as a prediction. Raises PredictionFailed when it is not one.

        The mean is that of min(length, `max_tokens`): it orders better than the mean cut at the limit.
        """
        try:
            summary = self._metadata.current().summarize(distribution, limit=max_tokens)
        except ValueError as error:
            raise PredictionFailed(str(error)) from None
        return LengthPrediction(mean=summary.mean, tail_mean=summary.tail_mean, source="proxy")

    def encode(self, text: str) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Proxy token ids and attention mask of one prompt, [1, L] each. Safe to call on any thread."""
        return self._encoder.encode([text])

    async def predict(self, input_ids: NDArray[np.int32], mask: NDArray[np.int32], max_tokens: int) -> LengthPrediction:
        """Ask the proxy. Raises PredictionFailed within the time budget, whatever state the proxy is in."""
        if time.monotonic() < self._resume_at:
            raise PredictionFailed("the proxy is being left alone after repeated failures")
        message = build_request(self._model, "", {"input_ids": input_ids, "attention_mask": mask})
        try:
            response = await self._infer(message, timeout=self._timeout_s)
            prediction = self.read(_distribution(response), max_tokens)
        except grpc.aio.AioRpcError as error:
            raise self._failed(f"{error.code().name}: {error.details()}") from None
        except PredictionFailed as error:
            raise self._failed(str(error)) from None
        self._failures = 0
        return prediction

    async def close(self) -> None:
        await self._channel.close()

    def _failed(self, reason: str) -> PredictionFailed:
        self._failures += 1
        if self._failures >= _PAUSE_AFTER_FAILURES:
            self._resume_at = time.monotonic() + _PAUSE_S
        log.warning("no prediction (%d in a row): %s", self._failures, reason)
        return PredictionFailed(reason)


def _distribution(response: Any) -> NDArray[np.float32]:
    outputs = read_outputs(response)
    if "length_distribution" not in outputs:
        raise PredictionFailed("the proxy's answer has no length_distribution")
    distribution: NDArray[np.float32] = outputs["length_distribution"][0]
    return distribution
