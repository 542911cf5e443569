"""The proxy as a TensorRT plan: exporting, building, comparing, installing (docs/proxy-tensorrt.md).

`export` needs the `serve` environment (onnx, onnxruntime, tokenizers, the packaged encoder). `__main__`, `builder`,
`comparison` and `install` run in NVIDIA's container with what is there: tensorrt, numpy, cuda-python.
"""
