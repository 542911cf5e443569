"""Writing a site's repository: a copy of the templates with the site's values, whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from ssjf_tools.configure.decisions import Site, yaml_text
from ssjf_tools.configure.facts import ConfigureError
from ssjf_tools.configure.options import ConfigureOptions
from ssjf_tools.configure.pbtxt import with_batch_size, with_parameters

MODELS = ("ensemble", "length_predictor", "preprocessing", "scheduler", "tensorrt_llm", "unary")
ENGINE = "tensorrt_llm"
_LLMAPI_FILES = ("model.py", "helpers.py")


def write_repository(options: ConfigureOptions, site: Site) -> Path:
    """Fills OUT/model_repository, replacing an older one only when the new one is complete.

    Raises ConfigureError naming the template or file of NVIDIA's that is missing, or a folder that is not one of ours.
    """
    target = options.out / "model_repository"
    if target.exists() and {path.name for path in target.iterdir()} - set(MODELS):
        raise ConfigureError(f"{target}: holds more than this project's models, refusing to replace it (--out)")
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".filling-", dir=options.out) as filling:
        fresh = Path(filling) / "model_repository"
        for model in MODELS:
            _write_model(options, site, model, fresh / model)
        if target.exists():
            target.rename(Path(filling) / "before")
        fresh.rename(target)
    return target


def _write_model(options: ConfigureOptions, site: Site, model: str, folder: Path) -> None:
    version = options.templates / model / "1"
    if version.is_dir():
        shutil.copytree(version, folder / "1")
    (folder / "1").mkdir(parents=True, exist_ok=True)
    llmapi = options.flavour == "llmapi" and model == ENGINE
    template = options.templates / model / ("configs/llmapi.pbtxt" if llmapi else "config.pbtxt")
    try:
        text = template.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigureError(f"{template}: {error.strerror} (a template, --templates)") from None
    if llmapi:
        _copy_llmapi(options, site, folder / "1")
    elif model == ENGINE and site.engine_batch is not None:
        text = with_batch_size(text, site.engine_batch)
    head = f"# Filled in by scripts/configure; what was decided is in {model}'s parameters.\n"
    (folder / "config.pbtxt").write_text(head + with_parameters(text, site.parameters(model)), encoding="utf-8")


def _copy_llmapi(options: ConfigureOptions, site: Site, folder: Path) -> None:
    """NVIDIA's model beside our settings for it; it is not part of this project, so it comes from the image."""
    for name in _LLMAPI_FILES:
        source = options.llmapi_model / name
        if not source.is_file():
            raise ConfigureError(
                f"{source}: no such file: run inside a -trtllm-python-py3 image, or name by --llmapi-model the folder "
                "triton_backend/all_models/llmapi/tensorrt_llm/1 of a TensorRT-LLM checkout of the image's version"
            )
        shutil.copy(source, folder / name)
    (folder / "model.yaml").write_text(yaml_text(site.model_yaml) + "\n", encoding="utf-8")
