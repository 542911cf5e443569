from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from proxy_onnx.errors import PlanError
from proxy_tensorrt.cuda import Cuda
from proxy_tensorrt.engine import TensorRtRuntime, import_library, machine
from tests.unit.proxy_tensorrt import fake_gpu
from tests.unit.proxy_tensorrt.fake_gpu import FakeCudart, FakeTrt
from tests.unit.proxy_tensorrt.plan_folder import HERE, PROFILE


def runtime(plan: bytes = fake_gpu.plan(), cudart: FakeCudart | None = None, bins: int = 4) -> TensorRtRuntime:
    return TensorRtRuntime(plan, PROFILE, bins, FakeTrt(), Cuda(0, cudart or FakeCudart()))


def ids(*first: int, length: int = 8) -> Any:
    made = np.ones((len(first), length), np.int32)
    made[:, 0] = first
    return made


def test_batches_of_all_sizes_go_through_the_same_buffers() -> None:
    engine = runtime()
    for rows, length in ((1, 1), (64, 12), (3, 4), (64, 8)):
        first = np.arange(rows)
        answer = engine.run(ids(*first, length=length), np.ones((rows, length), np.int32))
        assert answer.dtype == np.float32
        assert answer.shape == (rows, 4)
        assert (answer.argmax(axis=1) == first % 4).all()


def test_an_answer_is_not_overwritten_by_the_next_one() -> None:
    engine = runtime()
    first = engine.run(ids(1), ids(1))
    engine.run(ids(2), ids(1))
    assert first.argmax() == 1


def test_the_callers_arrays_need_not_be_contiguous() -> None:
    engine = runtime()
    wide = ids(5, 6, 7, length=12)
    assert engine.run(wide[::2, :4], np.ones((2, 12), np.int32)[:, :4]).argmax(axis=1).tolist() == [1, 3]


def test_a_batch_beyond_the_profile_is_refused_before_memory_is_touched() -> None:
    with pytest.raises(PlanError, match="65 rows of 8 tokens; the plan takes at most 64 of 12"):
        runtime().run(ids(*range(65)), ids(*range(65)))
    with pytest.raises(PlanError, match="1 rows of 13 tokens"):
        runtime().run(ids(1, length=13), ids(1, length=13))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unloadable": True}, r"TensorRT 10\.13\.3\.9 cannot load the plan"),
        ({"names": ["ids", "attention_mask", "length_distribution"]}, "the plan's tensors are"),
        ({"dtype": "int64"}, "the plan's tensors are"),
        ({"bins": 5}, "the plan's tensors are"),
        ({"rows": 32}, r"profile ends at \[32, 12\]"),
        ({"no_context": True}, "GPU's memory full"),
    ],
)
def test_a_plan_of_another_shape_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        runtime(fake_gpu.plan(**change))


@pytest.mark.parametrize(
    ("change", "failing", "message"),
    [
        ({"refuses_shapes": True}, "", r"refuses input_ids of shape \[1, 8\]"),
        ({"fails": True}, "", "could not run a batch of 1 rows of 8 tokens"),
        ({}, "synchronize", "cudaStreamSynchronize failed on GPU 0: cudaErrorInvalidValue"),
    ],
)
def test_a_run_that_fails_is_an_error(change: dict[str, Any], failing: str, message: str) -> None:
    engine = runtime(fake_gpu.plan(**change), FakeCudart(failing=failing))
    with pytest.raises(PlanError, match=message):
        engine.run(ids(1), ids(1))


def test_everything_is_freed_once() -> None:
    cudart = FakeCudart()
    engine = runtime(cudart=cudart)
    engine.run(ids(1), ids(1))
    assert len(cudart.memory) == 6
    engine.close()
    engine.close()
    assert (cudart.memory, cudart.streams) == ({}, 0)


def test_a_full_device_and_a_missing_one_are_named() -> None:
    with pytest.raises(PlanError, match="cudaHostAlloc failed on GPU 0: cudaErrorMemoryAllocation"):
        runtime(cudart=FakeCudart(failing="malloc"))
    with pytest.raises(PlanError, match="cudaSetDevice failed on GPU 1"):
        Cuda(1, FakeCudart())


def test_the_machine_says_what_a_plan_would_be_for() -> None:
    assert machine(FakeTrt(), Cuda(0, FakeCudart())) == HERE


def test_a_library_that_is_not_there_is_named() -> None:
    with pytest.raises(PlanError, match="needs the Python package no_such_tensorrt"):
        import_library("no_such_tensorrt")
