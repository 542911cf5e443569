"""How a request can end badly outside the core. All are SchedulerErrors, so one handler serves them all.

SchedulerError (ssjf.core.errors)
├── RequestCancelled   the client went away or asked to stop waiting
├── EngineFailed       the engine refused or broke off the request
│   └── EngineUnavailable   no engine could be reached for too long
├── NotAccepting       the scheduler is being drained
├── ControlRefused     a control request without its token, or an unknown one
└── InternalError      a fault of ours; the log has the traceback
"""

from __future__ import annotations

from ssjf.core.errors import SchedulerError


class RequestCancelled(SchedulerError):
    """The client has gone: nobody reads this."""


class EngineFailed(SchedulerError):
    """The engine's own words, with the prefix that says whose they are."""


class EngineUnavailable(EngineFailed):
    """Nobody serves: the request may be sent again later."""


class NotAccepting(SchedulerError):
    """New requests are refused while running ones finish."""


class ControlRefused(SchedulerError):
    """Control requests need the token of the scheduler's configuration."""


class InternalError(SchedulerError):
    """A fault of ours: this request ends, the others go on."""
