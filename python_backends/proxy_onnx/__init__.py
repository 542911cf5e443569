"""Output-length predictor of the CPU profile: MiniLM and a distribution head in ONNX Runtime.

Modules (only `model.py` knows Triton, only `runtime.py` imports ONNX Runtime):
    errors    what can go wrong
    metadata  proxy.json: bins, limits; distribution -> mean, tail mean, quantiles
    encode    text -> padded token ids and mask
    settings  the model's parameters from config.pbtxt and the environment
    batching  requests of one execute() call -> padded batches by length bucket
    runtime   ONNX Runtime session
    predict   requests in, distributions or per-request errors out
"""
