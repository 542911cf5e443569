"""Errors of the length predictor.

ProxyError
├── MetadataError      proxy.json is missing a field or contradicts itself
├── EncodeError        a text cannot be turned into tokens
├── RequestError       one request's tensors break the contract
├── DistributionError  a length distribution is not one (NaN, negative, wrong size, wrong sum)
├── PlanError          a TensorRT plan was built for something else, or this machine cannot run it
├── SwapError          a new proxy cannot take over from the one that is serving
└── SettingsError      the model's parameters are unknown or out of range
"""

from __future__ import annotations


class ProxyError(ValueError):
    """Anything that this package refuses; the text names the field, the value and the limit."""


class MetadataError(ProxyError):
    """proxy.json is missing a field or contradicts itself."""


class EncodeError(ProxyError):
    """A text cannot be turned into tokens."""


class RequestError(ProxyError):
    """One request's tensors break the contract; its neighbours are not concerned."""


class DistributionError(ProxyError):
    """A length distribution is not one."""


class PlanError(ProxyError):
    """A TensorRT plan was built for something else, or this machine cannot run it; the text says what to run."""


class SwapError(ProxyError):
    """A new proxy cannot take over from the one that is serving."""


class SettingsError(ProxyError):
    """The model's parameters are unknown or out of range."""
