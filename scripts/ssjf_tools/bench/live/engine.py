"""The engine itself, which the arm `direct` and the calibration ask without the scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc.aio

from ssjf.tensors import ENGINE_REQUIRED_INPUTS
from ssjf_tools.bench.streams import StreamClient

ENGINE = "tensorrt_llm"
TOKENIZER = "preprocessing"
_INPUTS = {TOKENIZER: ("text_input",), ENGINE: (*(spec.name for spec in ENGINE_REQUIRED_INPUTS), "streaming")}
# The setting of the CPU engine: how many tokens of prompts and answers go into one step.
_CHUNK_PARAMETER = "max_batched_tokens"


async def engine_parameters(client: StreamClient, url: str, needed_by: str) -> dict[str, str]:
    """Parameters of the engine's model at `url`.

    Raises ValueError where the server has no engine that can be asked for token ids in TensorRT-LLM's tensors: another
    flavour, or one that runs elsewhere. `needed_by`: the argument that asks for it.
    """
    parameters: dict[str, str] = {}
    for model, inputs in _INPUTS.items():
        config, why = await _config_of(client, model)
        missing = [] if config is None else sorted(set(inputs) - {entry.name for entry in config.input})
        if config is None or missing:
            raise ValueError(_complaint(url, needed_by, model, why or f"it has no input {', '.join(missing)}"))
        parameters = {name: value.string_value for name, value in config.parameters.items()}
    return parameters


async def _config_of(client: StreamClient, model: str) -> tuple[Any, str]:
    try:
        return await client.model_config(model), ""
    except grpc.aio.AioRpcError as error:
        return None, error.details() or str(error.code())


def _complaint(url: str, needed_by: str, model: str, why: str) -> str:
    wanted = " and ".join(f"{name} ({', '.join(inputs)})" for name, inputs in _INPUTS.items())
    return (
        f"{needed_by} asks the engine itself, by the models {wanted} of the server at {url}; {model}: {why}. "
        "What has them: a Triton with scheduler, tokenizer and engine in one (flavour inflight_batcher_llm; pass its "
        "--url), or the server that scripts/bench starts without --url"
    )


def chosen_chunk(
    given: int | None, parameters: Mapping[str, str], environment: Mapping[str, str], own: bool
) -> tuple[int | None, str]:
    """How many prompt tokens the engine takes into a step (None: it does not say), and where that is from.

    `given`: by the caller, 0 for no chunks. `environment` counts on a server of our own, which has inherited it.
    """
    if given is not None:
        return given or None, "--chunk-tokens"
    variable = f"SSJF_{_CHUNK_PARAMETER.upper()}"
    if own and variable in environment:
        return _whole(environment[variable]), f"{variable}, which the server has inherited"
    found = _whole(parameters.get(_CHUNK_PARAMETER, ""))
    if found is None:
        return None, (
            f"the server's model {ENGINE} has no parameter {_CHUNK_PARAMETER}, so prompts are taken to slow nobody "
            "down; if the engine takes them in chunks, pass --chunk-tokens N"
        )
    unless = "" if own else f" (unless {variable} says otherwise in its environment: then pass --chunk-tokens N)"
    return found, f"{_CHUNK_PARAMETER} of the server's model {ENGINE}{unless}"


def _whole(text: str) -> int | None:
    return int(text) if text.strip().isdecimal() and int(text) > 0 else None
