"""Output-length predictor of the CPU profile: MiniLM and a distribution head in ONNX Runtime.

`proxy_tensorrt` shares everything here but the runtime and its settings.

Modules (only `model.py` and `triton_io.py` know Triton, only `runtime.py` imports ONNX Runtime):
    errors    what can go wrong
    metadata  proxy.json: bins, limits; distribution -> mean, tail mean, quantiles
    encode    text -> padded token ids and mask
    settings  the model's parameters from config.pbtxt and the environment
    batching  requests of one execute() call -> padded batches by length bucket
    runtime   ONNX Runtime session
    predict   requests in, distributions or per-request errors out
    live      the proxy in use, replaced while serving when its folder holds another one
    contract  what a new proxy must have in common with the one that it replaces
    triton_io requests of Triton to a live proxy, answers back
"""
