"""docs/configuration.md: what each setting means and which values it may have, as a page for `scripts/reference`.

The scheduling core keeps its ranges in a table of its own; those of the other classes stand here, and a test holds them
against what the classes accept.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, get_args

from openvino_llm.settings import PRECISIONS, EngineSettings, SamplingDefaults
from proxy_onnx.settings import MOST_THREADS, MOST_WATCH_S, ProxySettings
from proxy_tensorrt.settings import MOST_ROWS, PlanSettings
from ssjf.core.policies.registry import POLICY_NAMES
from ssjf.core.settings import LIVE_LIMITS, POLICY_SETTINGS, RANGES, Batching, CoreSettings
from ssjf.service.settings import FLAVOURS, ServiceSettings
from tokenizer.settings import FolderSettings
from tokenizer.text import PROMPT_FORMATS, TextSettings

SECTIONS: tuple[tuple[str, tuple[type[Any], ...]], ...] = (
    ("scheduler", (CoreSettings, ServiceSettings, TextSettings)),
    ("preprocessing", (FolderSettings, TextSettings)),
    ("length_predictor (production)", (PlanSettings,)),
    ("length_predictor (CPU profile)", (ProxySettings,)),
    ("tensorrt_llm (CPU profile)", (EngineSettings, SamplingDefaults)),
)

HEAD = """\
# Configuration

*Written by `scripts/reference` from the settings classes and `scripts/ssjf_tools/reference_settings.py`; edit those.*

Every setting is a key of the model's `parameters` in its `config.pbtxt`. `SSJF_<KEY>` in the environment of
`tritonserver` beats it, and `${NAME:-default}` in a value is taken from the environment. Relative paths start at the
folder that holds `model_repository`. An unknown key, a wrong type or a value out of range keeps the model from loading,
with an error that names model, key, value and range. A variable that reads like one of
the scheduler's settings but is none is named in the log. *live*: changed on a running server by a
[control request](operating.md#control-requests), `set_limits` or `set_policy` (`ssjf limits`, `ssjf policy`).
"""


def _number(value: float) -> str:
    """`2^53`, `2^31 - 1`, `10^9`; small ones as they are."""
    if math.isinf(value) or abs(value) < 2**24:
        return f"{value:.10g}"
    for base, power, less in ((2, 31, 0), (2, 31, 1), (2, 53, 0), (2, 64, 1), (10, 9, 0)):
        if value == base**power - less:
            return f"{base}^{power}" + (f" - {less}" if less else "")
    return f"{value:.10g}"


@dataclass(frozen=True, slots=True)
class Range:
    """Allowed numbers, both ends included; `above`: the low end is not. Without `high` there is no upper end."""

    low: float
    high: float | None = None
    above: bool = False

    def __str__(self) -> str:
        low = _number(self.low)
        if self.above:
            return f"above {low}" + (f", at most {_number(self.high)}" if self.high is not None else "")
        return f"{low} to {_number(self.high)}" if self.high is not None else f"at least {low}"


Allowed = Range | str
_DAY_S = Range(0, 86_400, above=True)
_WATCH = Range(0, MOST_WATCH_S)

ALLOWED: Mapping[type[Any], Mapping[str, Allowed]] = {
    CoreSettings: {
        "policy": ", ".join(POLICY_NAMES),
        "batching": ", ".join(get_args(Batching)),
        "tenant_weights": f"weights {Range(1e-6, 1e6)}",
        **{key: Range(low, high) for key, (low, high) in RANGES.items()},
    },
    ServiceSettings: {
        "engine_flavour": ", ".join(FLAVOURS),
        "engine_slots": Range(1),
        "engine_stall_s": _DAY_S,
        "engine_wait_s": _DAY_S,
        "predictor_timeout_s": _DAY_S,
        "max_output_tokens": Range(1),
        "max_stop_words": Range(1),
        "max_word_bytes": Range(1),
        "cancel_poll_s": _DAY_S,
        "journal_max_bytes": Range(4096),
        "journal_files": Range(1),
    },
    TextSettings: {
        "prompt_format": ", ".join(PROMPT_FORMATS),
        "max_context_tokens": Range(2),
        "max_prompt_bytes": Range(1),
        "end_id": Range(-1),
        "pad_id": Range(-1),
    },
    FolderSettings: {},
    PlanSettings: {"proxy_max_batch_rows": Range(1, MOST_ROWS), "proxy_watch_s": _WATCH},
    ProxySettings: {"proxy_threads": Range(1, MOST_THREADS), "proxy_watch_s": _WATCH},
    EngineSettings: {
        "precision": ", ".join(PRECISIONS),
        "max_num_seqs": Range(1, 256),
        "num_kv_blocks": Range(2, 1 << 20),
        "max_batched_tokens": f"`max_num_seqs` to {1 << 16}",
        "inference_threads": Range(0, 1024),
        "cancel_poll_ms": Range(5, 10_000),
        "start_timeout_s": Range(1, 3600),
        "hang_timeout_s": Range(1, 3600),
    },
    SamplingDefaults: {
        "default_temperature": Range(0, 100),
        "default_top_p": Range(0, 1),
        "default_top_k": Range(0, 1 << 31),
        "default_repetition_penalty": Range(0.01, 100),
    },
}

_WATCH_MEANS = "seconds between two looks at `proxy_dir`: a new proxy in it [takes over](proxy-tensorrt.md); 0: never"

MEANINGS: Mapping[type[Any], Mapping[str, str]] = {
    CoreSettings: {
        "policy": "what orders the queue (table in the README)",
        "max_inflight": "requests that the engine runs at once: its batch slots",
        "over_dispatch": "how many more to send ahead, to hide the gap until a slot is filled again",
        "max_inflight_tokens": "prompt plus predicted output of the running jobs, the engine's KV cache; none: no "
        "limit",
        "batching": "continuous: a slot frees, the best job goes; dynamic: groups of up to `batch_size`, the next when "
        "one is done; none: one at a time",
        "batch_size": "jobs of a group, for `batching` dynamic",
        "max_wait_s": "a job that waited this long goes to the front of its tenant; inf: no bound",
        "aging_rate": "for `ssjf-aging`, tokens a second of waiting; none: twice the running mean length over "
        "`max_wait_s`",
        "sept_tail_beta": "for `sept-tail`: weight of the mean of the upper tail",
        "prefill_weight": "output tokens that one prompt token costs: prefill is 50 to 200 times cheaper than decoding",
        "random_seed": "for `random`",
        "tenant_weights": "tenants' shares of served tokens, a JSON object; a tenant that is not listed has weight 1",
        "priority_classes": "a request's `priority_class` is 0 to this less one",
        "max_queue": "requests that may wait; more are refused with when to retry",
        "max_queue_bytes": "bytes of the waiting requests' prompts and token ids; beyond it the same",
        "prior_tokens": "output length to assume before the first answers",
        "prior_window": "how many recent answers the prior remembers",
        "guardrail": "whether to order by arrival while the predictions are worse than useless",
        "guardrail_window": "answers over which predictions are judged",
        "guardrail_every": "answers from one judgement to the next",
        "guardrail_min_answers": "answers before the first judgement; at most `guardrail_window`",
        "guardrail_fall_tau": "it falls when Kendall's τ_b of predicted against actual lengths is below this",
        "guardrail_recover_tau": "it recovers when τ_b is at least this; at least `guardrail_fall_tau`",
        "guardrail_max_bias": "it falls, too, when the sum of the predictions is off by more than this factor",
    },
    ServiceSettings: {
        "engine_url": "gRPC host:port of the Triton with the engine; several, separated by commas",
        "engine_model": "the engine's model there",
        "engine_flavour": "which tensors the engine speaks",
        "engine_slots": "slots of each engine server; none: `max_inflight`, which counts all, is shared out evenly",
        "engine_stall_s": "a running request that heard nothing from its engine for so many seconds is given up; one "
        "that is not streamed gets the time of its whole answer on top",
        "engine_wait_s": "seconds that requests wait at most while no engine can be reached",
        "engine_tls_ca": "PEM file of the roots to trust: encrypts the way to the engine",
        "engine_tls_cert": "PEM file that shows the engine who we are; with `engine_tls_key`",
        "engine_tls_key": "its private key",
        "self_url": "gRPC host:port of the Triton that holds `length_predictor`, this one",
        "predictor_model": "the proxy's model there",
        "predictor_timeout_s": "seconds until a request of the `scheduler` door goes into the queue without a "
        "prediction; one that comes later, within a minute, is taken while the request waits",
        "tokenizer_dir": "folder of the served model's tokenizer",
        "proxy_dir": "folder with the proxy's proxy.json and tokenizer.json",
        "max_output_tokens": "largest `max_tokens` of a request",
        "max_stop_words": "stop words, or bad words, of a request",
        "max_word_bytes": "bytes of one of them",
        "echo_prompt": "whether unstreamed answers begin with the prompt where a request does not say",
        "control_token": "switches control requests on: the secret that they must bring",
        "cancel_poll_s": "seconds between two looks at whether clients are still there",
        "cancel_past_deadline": "cuts an answer at its `deadline_ms`; then a request that cannot be finished by it is "
        "not started",
        "journal_path": "file of the [journal](journal.md) of finished requests; none: no journal",
        "journal_prompts": "whether the prompts themselves stand in it",
        "journal_max_bytes": "size at which a new file is begun",
        "journal_files": "files kept",
    },
    TextSettings: {
        "prompt_format": "chat: the text is a user's turn, put into the model's chat template; raw: as it is",
        "system_prompt": "system turn before it; for `chat` only",
        "add_special_tokens": "for `raw` only: a chat template writes its own",
        "max_context_tokens": "prompt and answer together",
        "max_prompt_bytes": "checked before any tokenization, so that a huge text costs nothing",
        "end_id": "sent to engines that take token ids where a request leaves it open: TensorRT-LLM knows no end of an "
        "answer by itself",
        "pad_id": "the same for padding",
    },
    FolderSettings: {
        "tokenizer_dir": "folder of the served model's tokenizer",
        "proxy_dir": "folder with the proxy's proxy.json and tokenizer.json",
    },
    PlanSettings: {
        "proxy_dir": "holds model.plan, plan.json, proxy.json and tokenizer.json (`scripts/build-proxy-plan`)",
        "proxy_max_batch_rows": "prompts of one run, cut at what the plan was built for",
        "proxy_watch_s": _WATCH_MEANS,
    },
    ProxySettings: {
        "proxy_dir": "holds model.onnx, proxy.json and tokenizer.json",
        "proxy_threads": "threads of one run; the LLM needs the cores more",
        "proxy_watch_s": _WATCH_MEANS,
    },
    EngineSettings: {
        "model_dir": "folder of weights, tokenizer and asset.json",
        "precision": "f32 (with a 16-bit KV cache) gives the same greedy answer alone and in any batch; bf16 is up to "
        "twice as fast and does not",
        "max_num_seqs": "batch slots",
        "num_kv_blocks": "KV pool in blocks of 32 tokens (23 KiB a token for SmolLM2-135M)",
        "max_batched_tokens": "tokens of one step: larger prefills faster, smaller keeps the pauses of running streams "
        "and of cancellation short",
        "inference_threads": "0 leaves the number to OpenVINO",
        "cancel_poll_ms": "milliseconds between two looks at whether requests were cancelled",
        "start_timeout_s": "seconds that the inference process may take until it is ready",
        "hang_timeout_s": "an inference process that says nothing for so long is killed and started again; it says "
        "something every second and after every step",
        "python_executable": "the Python that runs it; empty: the version that Triton's stub embeds",
    },
    SamplingDefaults: {
        "default_temperature": "0 is greedy",
        "default_top_p": "the likeliest tokens that have this probability together; 0 or 1: all",
        "default_top_k": "so many of the likeliest tokens; 0: all, with `default_top_p` 0 greedy",
        "default_repetition_penalty": "1 is none",
    },
}


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for model, classes in SECTIONS:
        name = model.split()[0]
        parts.append(f"\n## `{name}`{model[len(name) :]}\n")
        parts += [f"\n{_purpose(cls)}\n\n{_table(cls)}" for cls in classes]
    return "".join(parts)


def _purpose(cls: type[Any]) -> str:
    """The first paragraph of the class's docstring; the table says the rest."""
    return " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split("\n"))


def _table(cls: type[Any]) -> str:
    rows = "".join(f"{row}\n" for row in _rows(cls))
    return f"| key | type | default | allowed | meaning |\n|---|---|---|---|---|\n{rows}"


def _rows(cls: type[Any]) -> Iterator[str]:
    live = LIVE_LIMITS | POLICY_SETTINGS | {"policy"} if cls is CoreSettings else frozenset[str]()
    for entry, default in zip(fields(cls), _defaults(cls), strict=True):
        kind = str(entry.type).replace("|", "or")
        meaning = MEANINGS[cls][entry.name] + (". *live*" if entry.name in live else "")
        yield f"| `{entry.name}` | {kind} | `{default}` | {ALLOWED[cls].get(entry.name, '')} | {meaning} |"


def _defaults(cls: type[Any]) -> Iterator[str]:
    """As one writes them in config.pbtxt."""
    instance = cls()
    for entry in fields(cls):
        value = getattr(instance, entry.name)
        if isinstance(value, tuple):
            yield ",".join(value)
        elif isinstance(value, bool) or value is None:
            yield str(value).lower()
        else:
            yield str(value)
