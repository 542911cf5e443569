"""What `request_output_len` makes the scripted engine do; any other length is answered as wanted."""

from __future__ import annotations

from typing import Final

SILENT_AT_ONCE: Final = 901
SILENT_AFTER_3: Final = 902
ERROR_AT_ONCE: Final = 903
ERROR_AFTER_3: Final = 904
END_AT_ONCE: Final = 905
END_AFTER_3: Final = 906
STRANGE_IDS: Final = 907
MORE_THAN_WANTED: Final = 908
NO_TENSORS: Final = 909

# → tokens before it happens, what happens.
SCRIPT: Final = {
    SILENT_AT_ONCE: (0, "silence"),
    SILENT_AFTER_3: (3, "silence"),
    ERROR_AT_ONCE: (0, "error"),
    ERROR_AFTER_3: (3, "error"),
    END_AT_ONCE: (0, "end"),
    END_AFTER_3: (3, "end"),
    STRANGE_IDS: (3, "strange ids"),
    MORE_THAN_WANTED: (3, "more than wanted"),
    NO_TENSORS: (3, "no tensors"),
}
