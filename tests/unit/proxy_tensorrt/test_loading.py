"""From a folder to answers, and another folder's content taking over while serving."""

from __future__ import annotations

import logging
import os
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from proxy_onnx.errors import ProxyError
from proxy_onnx.live import LiveProxy
from proxy_tensorrt.cuda import Cuda
from proxy_tensorrt.loading import WATCHED, load_proxy
from proxy_tensorrt.plan import PLAN_FILE, Machine
from tests.unit.proxy_tensorrt import fake_gpu, plan_folder
from tests.unit.proxy_tensorrt.fake_gpu import FakeCudart, FakeTrt

OTHER = Machine("tensorrt", "10.13.3.9", "NVIDIA Other", "9.0")


class Device:
    """Opens the same fake GPU again and again."""

    def __init__(self) -> None:
        self.cudart = FakeCudart()

    def live(self, folder: Path) -> LiveProxy:
        return LiveProxy(
            folder, WATCHED, lambda: load_proxy(folder, 64, lambda: Cuda(0, self.cudart), lambda _name: FakeTrt())
        )


def chosen_bin(live: LiveProxy, first: int) -> int:
    row = np.full((1, 3), first, np.int32)
    with live.use() as predictor:
        (answer,) = predictor.predict([(row, np.ones_like(row))])
    assert not isinstance(answer, ProxyError)
    return int(answer.argmax())


def looks(live: LiveProxy) -> bool:
    """Two looks: the first sees a change, the second that it has come to rest."""
    return live.look() or live.look()


def test_a_folder_answers_and_frees_everything(tmp_path: Path) -> None:
    plan_folder.fill(tmp_path)
    device = Device()
    live = device.live(tmp_path)
    assert [chosen_bin(live, first) for first in (4, 5, 6, 7)] == [0, 1, 2, 3]
    live.close()
    assert device.cudart.memory == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / PLAN_FILE).write_bytes(fake_gpu.plan(shift=1)), r"is not the plan that plan\.json"),
        (lambda folder: (folder / PLAN_FILE).unlink(), r"model\.plan cannot be read"),
        (lambda folder: (folder / "plan.json").unlink(), r"plan\.json is missing"),
        (
            lambda folder: (folder / "proxy.json").write_text((folder / "proxy.json").read_text() + " "),
            "was built for another proxy",
        ),
        (lambda folder: plan_folder.fill(folder, machine=OTHER), "here is NVIDIA Test; build one here"),
        (lambda folder: plan_folder.fill(folder, fake_gpu.plan(unloadable=True)), "cannot load the plan"),
        (lambda folder: plan_folder.fill(folder, fake_gpu.plan(nan=True)), "sums to nan"),
    ],
)
def test_what_does_not_belong_together_does_not_load_and_leaves_nothing_on_the_device(
    tmp_path: Path, change: Any, message: str
) -> None:
    plan_folder.fill(tmp_path)
    change(tmp_path)
    device = Device()
    with pytest.raises(ProxyError, match=message):
        device.live(tmp_path)
    assert device.cudart.memory == {}


def test_a_new_plan_takes_over_when_it_has_come_to_rest(tmp_path: Path) -> None:
    plan_folder.fill(tmp_path)
    device = Device()
    live = device.live(tmp_path)
    assert not looks(live)
    held = len(device.cudart.memory)
    plan_folder.fill(tmp_path, fake_gpu.plan(shift=1), proxy={"bin_means": [2, 9, 33, 90]})
    assert not live.look()
    assert chosen_bin(live, 4) == 0
    assert live.look()
    assert chosen_bin(live, 4) == 1
    assert len(device.cudart.memory) == held
    assert not looks(live)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"proxy": {"bin_edges": [1, 4, 16, 64, 300]}}, "bin_edges is .*restart the server"),
        ({"proxy": {"max_length": 8, "length_buckets": [4, 8]}}, "max_length is 8 in the new"),
        ({"proxy": {"truncation": {"kind": "head_tail", "head_tokens": 1}}}, "truncation is"),
        ({"machine": OTHER}, "here is NVIDIA Test"),
        ({"plan": fake_gpu.plan(nan=True)}, "sums to nan"),
        ({"plan": fake_gpu.plan(fails=True)}, "could not run"),
        ({"plan": b"half a pl"}, "refused"),
    ],
)
def test_a_bad_successor_is_refused_once_and_the_old_one_serves_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: dict[str, Any], message: str
) -> None:
    plan_folder.fill(tmp_path)
    device = Device()
    live = device.live(tmp_path)
    held = len(device.cudart.memory)
    plan_folder.fill(tmp_path, **change)
    with caplog.at_level(logging.ERROR):
        assert not any(looks(live) for _ in range(3))
    assert len(caplog.records) == 1
    assert caplog.messages[0].startswith("a new proxy was found and refused, the old one stays in use")
    assert re.search(message, caplog.messages[0])
    assert chosen_bin(live, 6) == 2
    assert len(device.cudart.memory) == held
    plan_folder.fill(tmp_path, fake_gpu.plan(shift=1))  # a later good one is taken
    assert looks(live)


def test_another_tokenizer_needs_a_restart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "tokenizer.json").write_text("one")
    plan_folder.fill(tmp_path)
    live = Device().live(tmp_path)
    (tmp_path / "tokenizer.json").write_text("another")
    plan_folder.fill(tmp_path, fake_gpu.plan(shift=1))
    assert not looks(live)
    assert "restart the server to change the proxy's tokenizer" in caplog.messages[0]


def test_a_folder_that_is_gone_for_a_moment_changes_nothing(tmp_path: Path) -> None:
    plan_folder.fill(tmp_path / "proxy")
    live = Device().live(tmp_path / "proxy")
    (tmp_path / "proxy").rename(tmp_path / "away")
    assert not looks(live)
    plan_folder.fill(tmp_path / "new", fake_gpu.plan(shift=1))
    (tmp_path / "new").rename(tmp_path / "proxy")
    assert looks(live)
    assert chosen_bin(live, 4) == 1


def test_a_folder_that_changes_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    plan_folder.fill(tmp_path)
    cudart, loads = FakeCudart(), []

    def load() -> Any:
        loaded = load_proxy(tmp_path, 64, lambda: Cuda(0, cudart), lambda _name: FakeTrt())
        loads.append(loaded)
        if len(loads) == 2:
            plan_folder.fill(tmp_path, fake_gpu.plan(shift=2))
        return loaded

    live = LiveProxy(tmp_path, WATCHED, load)
    plan_folder.fill(tmp_path, fake_gpu.plan(shift=1))
    assert not looks(live)
    assert chosen_bin(live, 4) == 0
    assert looks(live)
    assert chosen_bin(live, 4) == 2
    live.close()
    assert cudart.memory == {}


def test_the_thread_finds_a_new_plan_by_itself(tmp_path: Path) -> None:
    plan_folder.fill(tmp_path)
    live = Device().live(tmp_path)
    live.start(0.01)
    plan_folder.fill(tmp_path, fake_gpu.plan(shift=1))
    deadline = time.monotonic() + 60
    while chosen_bin(live, 4) != 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert chosen_bin(live, 4) == 1
    live.close()


def test_a_smaller_profile_bounds_the_batches(tmp_path: Path) -> None:
    small = replace(plan_folder.PROFILE, max_rows=2)
    plan_folder.fill(tmp_path, fake_gpu.plan(rows=2), profile=small)
    live = Device().live(tmp_path)
    rows = np.full((5, 3), 6, np.int32)
    with live.use() as predictor:
        (answer,) = predictor.predict([(rows, np.ones_like(rows))])
    assert not isinstance(answer, ProxyError)
    assert answer.argmax(axis=1).tolist() == [2] * 5


@pytest.mark.skipif(
    "SSJF_TEST_PLAN" not in os.environ, reason="needs a GPU, and SSJF_TEST_PLAN: a folder with its plan"
)
def test_a_real_plan_on_a_real_gpu() -> None:
    """SSJF_TEST_PLAN=/opt/ssjf/proxy, where scripts/build-proxy-plan installed on this GPU."""
    loaded = load_proxy(Path(os.environ["SSJF_TEST_PLAN"]), 64, lambda: Cuda(0))
    try:
        rows = np.full((70, 16), 1000, np.int32)
        (answer,) = loaded.predictor.predict([(rows, np.ones_like(rows))])
        assert not isinstance(answer, ProxyError)
        assert answer.shape == (70, loaded.metadata.bins)
        assert np.allclose(answer, answer[0], atol=1e-3)
    finally:
        loaded.close()
