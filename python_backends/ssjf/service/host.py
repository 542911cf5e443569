"""Puts the service together and runs it: one event-loop thread, the sender, the poller, the metrics thread."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable

from proxy_onnx.contract import LiveMetadata
from proxy_onnx.encode import ProxyEncoder
from ssjf.core.scheduler import Scheduler
from ssjf.core.settings import CoreSettings
from ssjf.service.channel import Channel, Outbox, Responder
from ssjf.service.engine.endpoint import EngineEndpoint
from ssjf.service.engine.flavours import ADAPTERS
from ssjf.service.engine.foreign import ForeignWatch
from ssjf.service.engine.pool import EnginePool, PoolSettings
from ssjf.service.engine.tls import EngineTls
from ssjf.service.journal import Journal
from ssjf.service.journal_file import RotatingFile
from ssjf.service.messages import Call
from ssjf.service.metrics import MetricsBackend, MetricsThread
from ssjf.service.predictor import Predictor
from ssjf.service.preparation import Preparation
from ssjf.service.records import FinishedRow, Recorder
from ssjf.service.service import Parts, Service
from ssjf.service.settings import ServiceSettings
from tokenizer.text import TextSettings, TextTokenizer

log = logging.getLogger("ssjf.host")

_STOP_TIMEOUT_S = 5.0
_FOREIGN_PERIOD_S = 5.0
_METADATA_PERIOD_S = 2.0


class ServiceHost:
    """Owner of the threads. `accept` may be called on any thread; `start` and `stop` once each."""

    def __init__(
        self,
        service: ServiceSettings,
        core: CoreSettings,
        text: TextSettings,
        metrics: Callable[[], MetricsBackend],
    ):
        self._settings = service
        self._core_settings = core
        self._text_settings = text
        self._encoder = ProxyEncoder.from_dir(service.proxy_dir)
        self._tokenizer = TextTokenizer.from_dir(service.tokenizer_dir, text)
        self._outbox = Outbox(on_broken=_give_up)
        self._metrics = MetricsThread(metrics)
        self._journal = _open_journal(service)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="ssjf-loop", daemon=True)
        self._service: Service | None = None

    def start(self) -> None:
        """Start the threads; when this returns, requests can be accepted."""
        self._thread.start()
        self._service = asyncio.run_coroutine_threadsafe(self._build(), self._loop).result()
        self._outbox.start()
        self._service.poller.start()
        self._metrics.start()
        if self._journal is not None:
            self._journal.start()

    def accept(self, call: Call, responder: Responder) -> None:
        """Hand a request to the event loop."""
        assert self._service is not None
        self._loop.call_soon_threadsafe(self._service.accept, call, responder)

    def stop(self, reason: str) -> None:
        """End every live request with `reason`, send what is left to send, end the threads."""
        if self._service is None:
            return
        self._service.poller.stop(_STOP_TIMEOUT_S)
        ending = asyncio.run_coroutine_threadsafe(self._service.shut_down(reason), self._loop)
        try:
            ending.result(_STOP_TIMEOUT_S)
        except TimeoutError:
            log.warning("the service did not end within %g s", _STOP_TIMEOUT_S)
        self._outbox.stop(_STOP_TIMEOUT_S)
        self._metrics.stop(_STOP_TIMEOUT_S)
        if self._journal is not None:
            self._journal.stop(_STOP_TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_TIMEOUT_S)

    def _observe(self, row: FinishedRow) -> None:
        self._metrics.observe(row)
        if self._journal is not None:
            self._journal.write(row)

    async def _build(self) -> Service:
        """On the loop: gRPC's asyncio channels belong to the loop that they are made on."""
        settings = self._settings
        predictor = Predictor(
            settings.self_url,
            settings.predictor_model,
            self._encoder,
            LiveMetadata(settings.proxy_dir, self._encoder.metadata, _METADATA_PERIOD_S),
            settings.predictor_timeout_s,
        )
        text, loop = self._text_settings, asyncio.get_running_loop()
        adapter = ADAPTERS[settings.engine_flavour](settings.engine_model)
        credentials = EngineTls(settings.engine_tls_ca, settings.engine_tls_cert, settings.engine_tls_key).credentials()
        endpoints = [EngineEndpoint(url, adapter, credentials) for url in settings.engine_url]
        foreign = ForeignWatch(endpoints, _FOREIGN_PERIOD_S)
        foreign.start()
        parts = Parts(
            settings=settings,
            core=Scheduler(self._core_settings),
            preparation=Preparation(
                self._tokenizer, predictor, text.max_context_tokens, text.max_prompt_bytes, adapter.takes_text
            ),
            adapter=adapter,
            pool=EnginePool(endpoints, PoolSettings(settings.engine_slots), loop.time),
            outbox=self._outbox,
            recorder=Recorder(self._observe),
            journal=self._journal,
            foreign=foreign,
        )
        service = Service(parts, loop)
        self._metrics.watch(service, loop)
        return service


def _open_journal(settings: ServiceSettings) -> Journal | None:
    if settings.journal_path is None:
        return None
    file = RotatingFile(settings.journal_path, settings.journal_max_bytes, settings.journal_files)
    return Journal(file, prompts=settings.journal_prompts)


def _give_up(_channel: Channel) -> None:
    """A response could not be sent: Triton has dropped the request, so there is nobody left to tell."""
