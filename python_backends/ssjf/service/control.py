"""Control requests: what an operator asks of a live scheduler, sent as request parameters to `scheduler`.

`control` names the request, `control_token` proves the right to it; the answer is JSON in `text_output`. JSON has no
infinity: `max_wait_s` is null, in requests and in the status, where nothing bounds the waiting.
Without a token in the configuration only the reduced `status` is answered (a health check needs no secret).
"""

from __future__ import annotations

import dataclasses
import hmac
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ssjf.core.errors import InvalidRequest
from ssjf.core.scheduler import Scheduler
from ssjf.core.settings import POLICY_SETTINGS
from ssjf.service.errors import ControlRefused

if TYPE_CHECKING:
    from ssjf.service.messages import Call
    from ssjf.service.service import Service

_PUBLIC = ("policy", "effective_policy", "queue_length", "in_flight", "dispatched", "finished")


class Control:
    """Answers control requests on the event loop."""

    def __init__(self, service: Service, core: Scheduler, token: str | None):
        self._service = service
        self._core = core
        self._token = token

    def handle(self, parameters: Mapping[str, Any]) -> str:
        """The JSON answer to one control request. Raises ControlRefused or InvalidRequest."""
        name = parameters["control"]
        trusted = self._is_trusted(parameters.get("control_token"))
        if name == "status":
            return _to_json(self._status(full=trusted))
        actions = {
            "set_policy": self._set_policy,
            "set_limits": self._set_limits,
            "drain": self._drain,
            "resume": self._resume,
        }
        if name not in actions:
            raise InvalidRequest("control", name, f"one of status, {', '.join(actions)}")
        if not trusted:
            raise ControlRefused(f"control {name!r} needs the control_token of the scheduler's configuration")
        actions[name](parameters)
        return _to_json(self._status(full=True))

    def stop_id(self, call: Call) -> str:
        """The id whose requests a `stop` ends. Raises InvalidRequest for an empty one: it would name nobody."""
        if not call.request_id:
            raise InvalidRequest("request id", "empty", "the id of the requests to stop")
        return call.request_id

    def _is_trusted(self, token: Any) -> bool:
        if not self._token or not isinstance(token, str):
            return False
        return hmac.compare_digest(token.encode(), self._token.encode())

    def _status(self, full: bool) -> dict[str, Any]:
        state = dataclasses.asdict(self._service.snapshot())
        if not full:
            state = {key: state[key] for key in _PUBLIC}
        return (
            {
                "ready": self._service.accepting,
                "live_requests": self._service.live_calls,
                "engines_up": sum(engine["state"] == "up" for engine in self._service.engine_state()),
            }
            | state
            | (self._details() if full else {})
        )

    def _details(self) -> dict[str, Any]:
        journal = self._service.journal
        return {
            **self._service.relay_state(),
            "engines": self._service.engine_state(),
            "journal": journal.state() if journal is not None else None,
            "policy_settings": {key: getattr(self._core.settings, key) for key in sorted(POLICY_SETTINGS)},
        }

    def _set_policy(self, parameters: Mapping[str, Any]) -> None:
        name = parameters.get("policy")
        if not isinstance(name, str):
            raise InvalidRequest("policy", name, "the name of a policy")
        settings = _json_object(parameters, "settings", '{"aging_rate": 4}') if "settings" in parameters else {}
        self._core.set_policy(name, self._service.now(), **settings)
        self._service.dispatcher.pump_soon()

    def _set_limits(self, parameters: Mapping[str, Any]) -> None:
        changes = _json_object(parameters, "limits", '{"max_inflight": 8}')
        if changes.get("max_wait_s", 0) is None:
            changes["max_wait_s"] = math.inf
        self._core.set_limits(self._service.now(), **changes)
        self._service.dispatcher.pump_soon()

    def _drain(self, _parameters: Mapping[str, Any]) -> None:
        self._service.accepting = False

    def _resume(self, _parameters: Mapping[str, Any]) -> None:
        self._service.accepting = True


def _json_object(parameters: Mapping[str, Any], name: str, example: str) -> dict[str, Any]:
    """The JSON object in a request parameter. Raises InvalidRequest."""
    text = parameters.get(name)
    try:
        values = json.loads(text or "")
    except (TypeError, ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise InvalidRequest(name, text, f"a JSON object such as {example}")
    return values


def _to_json(state: dict[str, Any]) -> str:
    return json.dumps(_finite(state), allow_nan=False)


def _finite(value: Any) -> Any:
    """The same with null for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
