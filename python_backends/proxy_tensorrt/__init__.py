"""Output-length predictor of production: the proxy as a TensorRT plan, on the `tensorrt` package and the CUDA runtime.

Modules (only `model.py` knows Triton; TensorRT and CUDA are imported when a plan is loaded):
    settings  the model's parameters from config.pbtxt and the environment
    plan      plan.json: what a plan was built from and for; does it fit here
    cuda      the few calls of the CUDA runtime that are needed, with errors
    engine    a plan, its context and buffers: token ids in, distributions out
    loading   a folder to a proxy that can answer
Batching, validation and replacement while serving are those of `proxy_onnx`.
"""
