"""`scripts/bench`: policies against each other on a live server, on the same requests at the same times.

prompts ─► first pass (true lengths, capacity) ─► Plan (one a repeat) ─► one Run an arm ─► figures ─► table, JSON, page
"""
