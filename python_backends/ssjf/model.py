"""Triton shell of `scheduler`: starts the service, hands requests in, ends with everything answered."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from ssjf.grpc_runtime import wake_fewer_threads

wake_fewer_threads()  # gRPC reads its settings when it is imported, which the next lines do

from ssjf.core.settings import CoreSettings
from ssjf.parameters import Parameters
from ssjf.service.engine.wire import CODED_ERRORS_PARAMETER
from ssjf.service.host import ServiceHost
from ssjf.service.settings import ServiceSettings
from ssjf.triton_io import TritonResponder, default_outputs, read_call, refuse
from ssjf.triton_metrics import TritonMetrics
from tokenizer.text import TextSettings

log = logging.getLogger("ssjf.model")


class TritonPythonModel:
    """One instance: the queue is one queue. `execute` only hands over; the service's threads do the rest."""

    def initialize(self, args: dict[str, str]) -> None:
        logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(name)s %(levelname)s %(message)s")
        parameters = Parameters.of_model(args, os.environ)
        parameters.check_known(ServiceSettings, CoreSettings, TextSettings)
        for name, meant in parameters.slips(ServiceSettings, CoreSettings, TextSettings):
            log.warning("%s in the environment is no setting of %s: %s?", name, parameters.model, meant)
        service = parameters.build(ServiceSettings)
        core, text = parameters.build(CoreSettings), parameters.build(TextSettings)
        self._defaults = default_outputs(args)
        self._host = ServiceHost(service, core, text, TritonMetrics)
        self._host.start()

    def execute(self, requests: Sequence[Any]) -> None:
        for request in requests:
            try:
                call = read_call(request)
                coded = CODED_ERRORS_PARAMETER in call.parameters
                self._host.accept(call, TritonResponder(request, self._defaults, coded))
            except Exception as error:  # nothing of this request is known well enough to go further
                refuse(request, f"the scheduler could not read this request: {error}")

    def finalize(self) -> None:
        self._host.stop("the server is shutting down")
