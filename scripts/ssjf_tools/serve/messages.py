"""What `scripts/serve` prints: one line per event, and the endpoints with three queries to copy."""

from __future__ import annotations

from ssjf_tools.serve.options import ServeOptions

PROMPT = "Why is the sky blue?"


def say(text: str) -> None:
    """One line of progress on standard output, at once also into a pipe."""
    print(f"serve: {text}", flush=True)


def ready(options: ServeOptions, python: str, control_token_file: str) -> str:
    """The text that greets a user whose server is ready. `python`: an interpreter that has tritonclient."""
    http = f"{options.local_host}:{options.http_port}"
    url = "" if options.grpc_url == "127.0.0.1:8001" else f" --url {options.grpc_url}"
    return f"""
Ready.  gRPC {options.host}:{options.grpc_port}   HTTP {options.host}:{options.http_port}   \
metrics http://{options.local_host}:{options.metrics_port}/metrics
Doors:  ensemble (any TensorRT-LLM client), scheduler (streams, sees cancellation), unary (plain infer())

  command line   scripts/ssjf generate "{PROMPT}" --stream{url}

  curl           curl -s http://{http}/v2/models/ensemble/generate -d '{{"text_input": "{PROMPT}", "max_tokens": 64}}'

  tritonclient   {python} - <<'PYTHON'
import numpy as np, tritonclient.grpc as triton
text = triton.InferInput("text_input", [1, 1], "BYTES")
text.set_data_from_numpy(np.array([["{PROMPT}"]], dtype=object))
limit = triton.InferInput("max_tokens", [1, 1], "INT32")
limit.set_data_from_numpy(np.array([[64]], dtype=np.int32))
answer = triton.InferenceServerClient("{options.grpc_url}").infer("unary", [text, limit])
print(answer.as_numpy("text_output").flat[0].decode())
PYTHON

Control token (policy, limits, details): {control_token_file}
Ctrl-C stops: running requests get {options.grace_s:g} s to finish.
"""
