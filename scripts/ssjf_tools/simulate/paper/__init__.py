"""The paper's experiment (Qiu et al., 2024, arXiv 2404.08509) and the same predictions in steady state."""
