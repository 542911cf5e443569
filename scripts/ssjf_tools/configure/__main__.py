"""`python -m ssjf_tools.configure`: reads, decides, prints, writes."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ssjf_tools.bootstrap import BootstrapError, enter
from ssjf_tools.configure.facts import ConfigureError
from ssjf_tools.configure.options import ConfigureOptions, parse

if TYPE_CHECKING:
    from ssjf_tools.configure.decisions import Site
    from ssjf_tools.configure.engine import EngineFacts
    from ssjf_tools.configure.tokenizer import TokenizerFacts

# Reading a tokenizer needs these; NVIDIA's images have them, elsewhere the environment of the CPU profile does.
_NEEDED = ("jinja2", "tokenizers", "numpy")
_PROXY_FILES = ("proxy.json", "tokenizer.json")


def main(argv: Sequence[str]) -> int:
    """Returns the exit code; prints what was decided, or what is wrong with which file and key."""
    options = parse(argv)
    try:
        if any(importlib.util.find_spec(name) is None for name in _NEEDED):
            enter("serve", "ssjf_tools.configure", argv)
        return configure(options)
    except (BootstrapError, ConfigureError) as error:
        print(f"scripts/configure: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"scripts/configure: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1


def configure(options: ConfigureOptions) -> int:
    """Everything after the options, in the right Python. Raises ConfigureError."""
    # NOTE: imported here, because `tokenizers` may be missing in the Python that this process began in.
    from ssjf_tools.configure.decisions import decide  # noqa: PLC0415
    from ssjf_tools.configure.engine import read_checkpoint, read_engine  # noqa: PLC0415
    from ssjf_tools.configure.repository import write_repository  # noqa: PLC0415
    from ssjf_tools.configure.tokenizer import read_tokenizer  # noqa: PLC0415

    options = _with_proxy(options)
    engine = (read_checkpoint if options.flavour == "llmapi" else read_engine)(options.engine_dir)
    tokenizer = read_tokenizer(options, engine)
    site = decide(options, engine, tokenizer, options.proxy_dir is None or options.proxy_dir.is_dir())
    print("\n".join(report(engine, tokenizer, site)))
    if options.dry_run:
        print("\nnothing was written (--dry-run)")
        return 0
    target = write_repository(options, site)
    print(f"\nwritten: {target}")
    print(f"next:    scripts/launch --dry-run --model-repository {target}")
    return 0


def _with_proxy(options: ConfigureOptions) -> ConfigureOptions:
    """The options with the proxy's folder, OUT/proxy unless one is named. Raises ConfigureError for one that is none.

    OUT/proxy may be missing: scripts/build-proxy-plan fills it later, on the machine with the GPU.
    """
    folder = options.proxy_dir or options.out / "proxy"
    if options.proxy_dir is not None or folder.is_dir():
        for name in _PROXY_FILES:
            if not (folder / name).is_file():
                raise ConfigureError(f"{folder / name}: no such file (the length proxy, --proxy-dir)")
    return dataclasses.replace(options, proxy_dir=folder)


def report(engine: EngineFacts, tokenizer: TokenizerFacts, site: Site) -> Iterator[str]:
    """What was found, what was decided and why, what to know: as lines."""
    batch = f"{engine.max_batch_size} requests of " if engine.max_batch_size else ""
    gpus = f"{engine.world_size} GPU{'s' if engine.world_size > 1 else ''}"
    yield f"engine     {engine.config.parent}"
    yield f"           {engine.architecture}, {engine.version}, {gpus}; {batch}{engine.max_seq_len} tokens"
    yield f"tokenizer  {tokenizer.size} ids of the engine's {engine.vocab_size}"
    yield f"           a prompt as the model sees it: {tokenizer.example!r}"
    model = ""
    for each in site.decisions:
        if each.model != model:
            model = each.model
            yield f"\n{model}"
        yield f"  {each.key:<31} {each.value:<24} {each.why}"
    if site.model_yaml:
        from ssjf_tools.configure.decisions import yaml_text  # noqa: PLC0415

        yield f"\ntensorrt_llm/1/model.yaml\n{yaml_text(site.model_yaml, '  ')}"
    for note in site.notes:
        yield f"\nnote: {note}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
