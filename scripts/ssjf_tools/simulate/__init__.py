"""Event-driven simulation of an LLM engine behind the scheduler that serves: `ssjf.core.Scheduler`.

files ─► Population ─► RequestSet (one a seed) ─► simulate(policy) ─► Timeline ─► Row ─► table, JSON, plots
"""
