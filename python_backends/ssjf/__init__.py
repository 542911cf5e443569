"""Speculative shortest-job-first scheduling for LLM serving on Triton (Qiu et al. 2024, arXiv 2404.08509)."""
