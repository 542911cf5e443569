"""What a policy is: an order among the waiting jobs of one tenant. Smaller goes first, ties by arrival."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from ssjf.core.job import Job


class Policy(ABC):
    """Base of both kinds of policy. Policies are immutable; a switch makes a new one.

    `uses_predictions` tells the guardrail whether a bad proxy can harm this order.
    """

    name: ClassVar[str]
    uses_predictions: ClassVar[bool] = False


class KeyedPolicy(Policy):
    """The order of two waiting jobs never changes, so that a heap holds it: O(log n) a job."""

    @abstractmethod
    def key(self, job: Job) -> float:
        """The job's place, fixed for its whole life in the queue."""


class DynamicPolicy(Policy):
    """The order of two waiting jobs changes with time, but within a group it is the order of arrival.

    A decision looks at the oldest job of each group: O(groups), so groups have to be few.
    """

    @abstractmethod
    def group(self, job: Job) -> int:
        """Jobs of one group are served in order of arrival among themselves."""

    @abstractmethod
    def score(self, job: Job, now: float) -> float:
        """The job's place at time `now`; only ever asked for the oldest job of a group."""
