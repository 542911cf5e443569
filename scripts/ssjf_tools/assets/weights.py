"""Q4_1 GGUF to F16 GGUF.

OpenVINO loads the quantised file too, but re-quantises it on the way: its greedy token then agrees with the model in
full precision on 76 % of positions, against 99 % from the F16 file.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np

Report = Callable[[str], None]

# Written by GGUFWriter itself.
_OWN_FIELDS = ("GGUF.", "general.architecture")
_REPORT_EVERY_S = 1.0


def to_f16(reader: gguf.GGUFReader, target: Path, report: Report) -> None:
    """Write the model of `reader` to `target` with all its metadata, its quantised tensors as 16-bit floats."""
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if not name.startswith(_OWN_FIELDS):
            value = int(gguf.LlamaFileType.MOSTLY_F16) if name == "general.file_type" else field.contents()
            item_type = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, value, field.types[0], sub_type=item_type)
    last_report = time.monotonic()
    for done, tensor in enumerate(reader.tensors):
        if tensor.tensor_type == gguf.GGMLQuantizationType.F32:  # the small norm vectors stay as they are
            writer.add_tensor(tensor.name, np.asarray(tensor.data))
        else:
            writer.add_tensor(tensor.name, gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float16))
        if time.monotonic() - last_report > _REPORT_EVERY_S:
            last_report = time.monotonic()
            report(f"smollm2: converting weights to F16, {done + 1} of {len(reader.tensors)} tensors")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
