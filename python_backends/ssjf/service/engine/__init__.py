"""Engines behind one small interface: an adapter speaks a flavour's tensors, an endpoint is one server of it."""
