"""Benchmarks against real servers: what the scheduler costs, and what it gains."""
