"""Names of the proxy's tensors, from the one table: what an ONNX graph or a plan must have."""

from __future__ import annotations

from ssjf.tensors import PROXY_INPUTS, PROXY_OUTPUT

INPUTS = tuple(spec.name for spec in PROXY_INPUTS)
OUTPUT = PROXY_OUTPUT.name
