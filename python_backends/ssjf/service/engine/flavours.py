"""The flavours of engine model by name; the names are those that the setting `engine_flavour` may have."""

from __future__ import annotations

from typing import Final

from ssjf.service.engine.base import EngineAdapter
from ssjf.service.engine.inflight import InflightAdapter
from ssjf.service.engine.llmapi import LlmapiAdapter

ADAPTERS: Final[dict[str, type[EngineAdapter]]] = {"inflight_batcher_llm": InflightAdapter, "llmapi": LlmapiAdapter}
