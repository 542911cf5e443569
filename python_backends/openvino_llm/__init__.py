"""CPU engine of the repository's `cpu` profile: OpenVINO continuous batching behind TensorRT-LLM's engine tensors.

The way of a request: `model.py` turns tensors into arrays → `request.py` checks them and makes one
`messages.Generation` per row → `desk.py` (one thread, owner of every response sender) hands them to the child process
→ `worker.py` runs them in `batch.py` over `pipeline.py` (OpenVINO) → token deltas come back, `ledger.py` merges them
into `responses.RowChunk`s → the desk sends those. `supervisor.py` starts the child process and replaces it when it
dies.
"""
