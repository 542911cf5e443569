"""Asking the proxy model how long an answer will be, and going on without it when it is broken or slow."""

from __future__ import annotations

import asyncio
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
# What a proxy that has not answered in time is given besides, and how many such questions may be open: behind one that
# hangs they pile up.
_PATIENCE_S = 60.0
_MOST_LATE = 1024


class PredictionFailed(Exception):
    """No usable prediction: the caller orders by its running prior."""


class PredictionLate(PredictionFailed):
    """No prediction yet: the caller orders by its prior until `coming` is done, or cancels it.

    `coming` ends with the prediction, or raises PredictionFailed.
    """

    def __init__(self, reason: str, coming: asyncio.Task[LengthPrediction]):
        super().__init__(reason)
        self.coming = coming


class Predictor:
    """The `length_predictor` model over gRPC with a deadline. Used on the event loop only.

    gRPC instead of a BLS call because a BLS call cannot be given up: behind a dead or slow predictor it would hold one
    of the stub's pool threads for ever. Nobody waits for longer than the time budget, but a proxy that is only slow, as
    when a hundred requests come at once, may answer later. After a row of failures nobody waits at all for two seconds
    at a time: one that answered with errors is left alone, one that was silent is asked all the same. Distributions are
    read by the proxy.json that its folder holds now: a proxy that was swapped brings its own bin means.
    """

    def __init__(self, url: str, model: str, encoder: ProxyEncoder, metadata: LiveMetadata, timeout_s: float):
        self._model = model
        self._encoder = encoder
        self._metadata = metadata
        self._timeout_s = timeout_s
        self._failures = 0
        self._resume_at = 0.0
        self._silent = False  # whether the last failure was one to answer in time
        self._late = 0
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
        """Ask the proxy. Raises PredictionFailed or PredictionLate within the time budget, whatever state it is in."""
        left_alone = time.monotonic() < self._resume_at
        if left_alone and not self._silent:
            raise PredictionFailed("the proxy is being left alone after repeated failures")
        asking = asyncio.get_running_loop().create_task(self._ask(input_ids, mask, max_tokens))
        if not left_alone:
            try:
                await asyncio.wait({asking}, timeout=self._timeout_s)
            except asyncio.CancelledError:
                asking.cancel()
                raise
            if asking.done():
                return asking.result()
            self._note_failure(f"no answer within {self._timeout_s:g} s", silent=True)
        if self._late >= _MOST_LATE:
            asking.cancel()  # before its first step, if nobody has waited for it: then the proxy never hears of it
            raise PredictionFailed("the proxy does not answer")
        self._late += 1
        asking.add_done_callback(self._over)
        raise PredictionLate("the proxy has not answered yet", asking)

    async def close(self) -> None:
        await self._channel.close()

    async def _ask(self, input_ids: NDArray[np.int32], mask: NDArray[np.int32], max_tokens: int) -> LengthPrediction:
        message = build_request(self._model, "", {"input_ids": input_ids, "attention_mask": mask})
        asked = time.monotonic()
        try:
            response = await self._infer(message, timeout=self._timeout_s + _PATIENCE_S)
            prediction = self.read(_distribution(response), max_tokens)
        except grpc.aio.AioRpcError as error:
            failure = PredictionFailed(f"{error.code().name}: {error.details()}")
        except PredictionFailed as error:
            failure = error
        except (ValueError, KeyError, IndexError) as error:
            failure = PredictionFailed(f"the proxy's answer cannot be read: {error!r}")
        else:
            if time.monotonic() - asked <= self._timeout_s:
                self._failures, self._resume_at = 0, 0.0
            return prediction
        if time.monotonic() - asked <= self._timeout_s:  # one that comes later was noted when it was late
            self._note_failure(str(failure), silent=False)
        raise failure

    def _note_failure(self, reason: str, *, silent: bool) -> None:
        self._failures += 1
        self._silent = silent
        if self._failures >= _PAUSE_AFTER_FAILURES:
            self._resume_at = time.monotonic() + _PAUSE_S
        log.warning("no prediction (%d in a row): %s", self._failures, reason)

    def _over(self, asking: asyncio.Task[LengthPrediction]) -> None:
        self._late -= 1
        if not asking.cancelled() and (error := asking.exception()) is not None:
            log.warning("no late prediction: %s", error)


def _distribution(response: Any) -> NDArray[np.float32]:
    outputs = read_outputs(response)
    if "length_distribution" not in outputs:
        raise PredictionFailed("the proxy's answer has no length_distribution")
    distribution: NDArray[np.float32] = outputs["length_distribution"][0]
    return distribution
