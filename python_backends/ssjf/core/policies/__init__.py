"""Scheduling policies: one small class each, made by name through `registry.make_policy`."""
