"""The named configs that only one model has."""

from __future__ import annotations

from tests.unit.model_repository.test_configs import expected, load, spec_of


def test_tritons_tensorrt_backend_gets_the_same_tensors_and_limits() -> None:
    named, default = load("length_predictor", "configs/tensorrt.pbtxt"), load("length_predictor", "config.pbtxt")
    assert (named.platform, named.backend, named.default_model_filename) == ("tensorrt_plan", "tensorrt", "model.plan")
    assert (named.name, named.max_batch_size) == (default.name, default.max_batch_size)
    inputs, outputs = expected("length_predictor", production=True)
    assert [spec_of(entry, True) for entry in named.input] == inputs
    assert [spec_of(entry, False) for entry in named.output] == outputs
    assert not named.parameters
