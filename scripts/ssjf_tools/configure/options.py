"""The command line of `scripts/configure` as one validated, immutable object. Standard library only."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn, get_args

from ssjf_tools.bootstrap import CHECKOUT

Flavour = Literal["inflight_batcher_llm", "llmapi"]
PromptFormat = Literal["raw", "chat"]
# Where NVIDIA's -trtllm-python-py3 images keep the Triton model of the llmapi flavour.
NGC_LLMAPI_MODEL = Path("/app/all_models/llmapi/tensorrt_llm/1")

_EPILOG = """\
what it does
  Reads the engine's own config.json and the tokenizer, decides the limits that have to agree with them, prints each
  with its reason, and writes OUT/model_repository: a filled copy of model_repository, which needs nothing of this
  checkout but the backends. The checkout stays as it is, so one checkout serves any number of sites, and a site's
  folder can be mounted read-only, kept under version control and compared with the one before (diff -r).

examples
  scripts/configure --engine-dir /srv/ssjf/engine --tokenizer-dir /srv/ssjf/tokenizer --out /srv/ssjf
  scripts/configure … --prompt-format chat --system-prompt "You are a helpful assistant."
  scripts/configure … --max-inflight 32 --kv-tokens 200000          fewer slots; the size of the KV cache in tokens
  scripts/configure … --seen-as /opt/ssjf                           OUT is mounted there in the server's container
  scripts/configure --flavour llmapi --engine-dir /models/llama --tokenizer-dir /models/llama --tensor-parallel 2 …
  scripts/configure … --dry-run                                     decide and print, write nothing

then
  scripts/build-proxy-plan --into OUT/proxy                         where the GPU is: the length proxy's TensorRT plan
  scripts/launch --model-repository OUT/model_repository            starts Triton with it, a process for each GPU

exit codes: 0 written, 1 a file is missing or does not fit (file and key are printed), 2 wrong usage
"""


@dataclass(frozen=True, slots=True)
class ConfigureOptions:
    """What to fill in. Lengths are tokens, `max_inflight` requests; None leaves a value to the engine or tokenizer.

    `seen_as` is the path under which the server will see `out`.
    """

    engine_dir: Path
    tokenizer_dir: Path
    flavour: Flavour = "inflight_batcher_llm"
    out: Path = CHECKOUT / "production"
    proxy_dir: Path | None = None
    seen_as: Path | None = None
    templates: Path = CHECKOUT / "model_repository"
    llmapi_model: Path = NGC_LLMAPI_MODEL
    max_inflight: int | None = None
    max_output_tokens: int | None = None
    max_seq_len: int | None = None
    kv_cache_fraction: float = 0.9
    kv_tokens: int | None = None
    tensor_parallel: int = 1
    stream_interval: int | None = None
    prompt_format: PromptFormat = "raw"
    system_prompt: str | None = None
    add_special_tokens: bool = True
    end_id: int | None = None
    pad_id: int | None = None
    dry_run: bool = False

    def served(self, path: Path) -> str:
        """`path` as the server will see it."""
        if self.seen_as is not None and path.is_relative_to(self.out):
            return str(self.seen_as / path.relative_to(self.out))
        return str(path)


def parse(argv: Sequence[str]) -> ConfigureOptions:
    """The options of a command line; on a wrong one argparse prints what is wrong and exits with code 2."""
    parser = _parser()
    options = ConfigureOptions(**vars(parser.parse_args(argv)))
    if options.system_prompt is not None and options.prompt_format != "chat":
        parser.error("--system-prompt needs --prompt-format chat: a raw prompt is sent as the client wrote it")
    if "${" in (options.system_prompt or ""):
        parser.error("--system-prompt has ${, which a parameter of a model takes from the environment")
    for name in ("tensor_parallel", "max_seq_len", "stream_interval"):
        if options.flavour != "llmapi" and getattr(options, name) not in (1, None):
            parser.error(f"--{name.replace('_', '-')} is for --flavour llmapi; an engine was built with its own limits")
    return options


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """As argparse does it, less the usage text that buries the message."""
        self.exit(2, f"scripts/configure: {message}\nscripts/configure --help explains.\n")


def _path(text: str) -> Path:
    return Path(text).expanduser().absolute()


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="scripts/configure",
        description="Fills the production model repository for one site: engine, tokenizer, limits that fit both.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_files(parser.add_argument_group("files"))
    _add_limits(parser.add_argument_group("limits (default: what the engine was built for)"))
    _add_prompts(parser.add_argument_group("prompts"))
    parser.add_argument("--dry-run", action="store_true", help="decide and print, write nothing")
    return parser


def _add_files(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--engine-dir",
        type=_path,
        required=True,
        metavar="DIR",
        help="the built engine (config.json, rank*.engine); llmapi: the checkpoint",
    )
    group.add_argument(
        "--tokenizer-dir", type=_path, required=True, metavar="DIR", help="tokenizer.json, tokenizer_config.json"
    )
    group.add_argument(
        "--flavour",
        choices=get_args(Flavour),
        default="inflight_batcher_llm",
        help="of TensorRT-LLM's Triton backend (default: %(default)s; docs/versions.md says which image has which)",
    )
    group.add_argument(
        "--out", type=_path, default=CHECKOUT / "production", metavar="DIR", help="the site's folder (production)"
    )
    group.add_argument("--seen-as", type=_path, metavar="DIR", help="where the server will see OUT, if elsewhere")
    group.add_argument(
        "--proxy-dir", type=_path, metavar="DIR", help="the length proxy (default: OUT/proxy, which may follow)"
    )
    group.add_argument(
        "--templates", type=_path, default=CHECKOUT / "model_repository", metavar="DIR", help="(model_repository)"
    )
    group.add_argument(
        "--llmapi-model",
        type=_path,
        default=NGC_LLMAPI_MODEL,
        metavar="DIR",
        help="NVIDIA's model.py and helpers.py of the llmapi flavour (default: %(default)s, as in the image)",
    )


def _add_limits(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--max-inflight", type=_count, metavar="N", help="requests in the engine at a time")
    group.add_argument("--max-output-tokens", type=_count, metavar="N", help="largest max_tokens of a request")
    group.add_argument("--max-seq-len", type=_count, metavar="N", help="llmapi: prompt and answer together")
    group.add_argument("--kv-tokens", type=_count, metavar="N", help="size of the KV cache in tokens, if it is known")
    group.add_argument(
        "--kv-cache-fraction",
        type=_share,
        default=0.9,
        metavar="X",
        help="share of the GPU memory that is free after loading (default: %(default)g)",
    )
    group.add_argument("--tensor-parallel", type=_count, default=1, metavar="N", help="llmapi: GPUs")
    group.add_argument(
        "--stream-interval",
        type=_count,
        metavar="N",
        help="llmapi: engine steps from one response of a stream to the next (default: 1 for each 64 slots, so that "
        "one scheduler carries them all; docs/scaling.md)",
    )


def _add_prompts(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--prompt-format",
        choices=get_args(PromptFormat),
        default="raw",
        help="raw: clients send prompts as the model sees them, as to TensorRT-LLM's ensemble; "
        "chat: clients send a user's turn, which goes into the chat template (default: %(default)s)",
    )
    group.add_argument("--system-prompt", metavar="TEXT", help="of every conversation (with chat)")
    group.add_argument(
        "--no-special-tokens",
        dest="add_special_tokens",
        action="store_false",
        help="raw prompts bring their own start token",
    )
    group.add_argument("--end-id", type=int, metavar="ID", help="ends an answer (default: the tokenizer's eos_token)")
    group.add_argument("--pad-id", type=int, metavar="ID", help="(default: the tokenizer's pad_token, else the end)")
