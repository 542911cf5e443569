"""Training, evaluating and building the length predictor.

data      prompts and measured lengths from JSONL, strictly checked
bins      the log-spaced length bins
encoder   the packaged MiniLM's weights without torch
graph     encoder and head as ONNX
head      the head's weights
fit       a head on the frozen encoder: numpy only
features  pooled features of many prompts through ONNX Runtime
metrics   rank correlation, calibration, errors
"""
