from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ssjf_tools.serve import layout
from ssjf_tools.serve.layout import LayoutError, Triton
from ssjf_tools.serve.options import ServeOptions


@pytest.fixture
def triton(tmp_path: Path) -> Triton:
    """A made-up installation like an NGC container's, with one more backend."""
    root = tmp_path / "opt"
    for path in (
        "bin/tritonserver",
        "backends/python/libtriton_python.so",
        "backends/python/triton_python_backend_utils.py",
        f"backends/python/{layout.STUB}",
        "backends/tensorrtllm/libtriton_tensorrtllm.so",
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)
    return layout.system_triton(root)


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    folder = tmp_path / "python_backends"
    for name in ("ssjf", "tokenizer"):
        (folder / name).mkdir(parents=True)
        (folder / name / "model.py").write_text("")
    (folder / "__pycache__").mkdir()
    return folder


def test_the_python_backend_is_copied_and_the_others_are_linked(triton: Triton, ours: Path, tmp_path: Path) -> None:
    folder = tmp_path / "backends"
    layout.lay_out_backends(folder, triton, ours)
    assert sorted(path.name for path in folder.iterdir()) == ["python", "ssjf", "tensorrtllm", "tokenizer"]
    assert sorted(path.name for path in (folder / "python").iterdir()) == [
        "libtriton_python.so",
        layout.STUB,
        "triton_python_backend_utils.py",
    ]
    assert not any(path.is_symlink() for path in (folder / "python").iterdir())
    assert (folder / "ssjf").resolve() == ours / "ssjf"
    assert (folder / "tensorrtllm" / "libtriton_tensorrtllm.so").is_file()


def test_laying_out_again_forgets_what_was_there(triton: Triton, ours: Path, tmp_path: Path) -> None:
    folder = tmp_path / "backends"
    layout.lay_out_backends(folder, triton, ours)
    (ours / "tokenizer" / "model.py").unlink()
    layout.lay_out_backends(folder, triton, ours)
    assert not (folder / "tokenizer").exists()
    assert (ours / "tokenizer").is_dir()


def test_a_machine_without_the_container_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"profile trtllm needs .*bin/tritonserver"):
        layout.system_triton(tmp_path)


def test_the_wheel_has_all_that_the_layout_needs(tmp_path: Path, ours: Path) -> None:
    triton = layout.wheel_triton()
    assert triton.server.is_file()
    layout.lay_out_backends(tmp_path / "backends", triton, ours)


def test_a_missing_shared_library_names_the_package(tmp_path: Path) -> None:
    stub = tmp_path / layout.STUB
    stub.write_text("#!/bin/sh\necho 'error while loading shared libraries: libpython3.so' >&2\nexit 127\n")
    stub.chmod(0o755)
    with pytest.raises(LayoutError, match=f"apt-get install libpython3.{sys.version_info.minor}"):
        layout.check_stub(Triton(stub, tmp_path, stub), {})


def test_a_stub_that_loads_is_accepted(tmp_path: Path) -> None:
    stub = tmp_path / layout.STUB
    stub.write_text("#!/bin/sh\necho 'Expected 9 arguments' >&2\nexit 1\n")
    stub.chmod(0o755)
    layout.check_stub(Triton(stub, tmp_path, stub), {})


def test_the_environment_finds_libraries_python_and_settings(triton: Triton, tmp_path: Path) -> None:
    options = ServeOptions(grpc_port=9001, policy="fcfs", max_inflight=4, assets=tmp_path)
    with_libraries = Triton(triton.server, triton.python_backend, triton.stub, (Path("/a"), Path("/b")))
    base = {"PATH": "/bin", "LD_LIBRARY_PATH": "/old", "PYTHONHOME": "/nowhere", "KEPT": "1"}
    environment = layout.server_environment(options, with_libraries, "secret", base)
    assert environment["LD_LIBRARY_PATH"] == "/a:/b:/old"
    assert environment["PATH"] == f"{sys.prefix}/bin:/bin"
    assert environment["SSJF_ENGINE_URL"] == environment["SSJF_SELF_URL"] == "127.0.0.1:9001"
    assert (environment["SSJF_POLICY"], environment["SSJF_MAX_INFLIGHT"]) == ("fcfs", "4")
    assert environment["SSJF_ASSETS"] == str(tmp_path)
    assert environment["SSJF_CONTROL_TOKEN"] == "secret"
    assert environment["KEPT"] == "1"
    assert "PYTHONHOME" not in environment


def test_an_engine_elsewhere_is_kept_and_open_settings_stay_open(triton: Triton) -> None:
    environment = layout.server_environment(ServeOptions(), triton, "secret", {"SSJF_ENGINE_URL": "engine:8001"})
    assert environment["SSJF_ENGINE_URL"] == "engine:8001"
    assert "SSJF_POLICY" not in environment
    assert "SSJF_MAX_INFLIGHT" not in environment
    assert "LD_LIBRARY_PATH" not in environment


def command(triton: Triton, ours: Path, tmp_path: Path, options: ServeOptions) -> list[str]:
    layout.lay_out_backends(tmp_path / "backends", triton, ours)
    return layout.server_command(options, triton, tmp_path / "backends", "prefix-")


def test_every_python_based_backend_gets_the_settings(triton: Triton, ours: Path, tmp_path: Path) -> None:
    words = command(triton, ours, tmp_path, ServeOptions(backend_threads=77))
    for backend in ("python", "ssjf", "tokenizer"):
        assert f"--backend-config={backend},thread-pool-size=77" in words
        assert f"--backend-config={backend},shm-region-prefix-name=prefix-" in words
    assert not any("tensorrtllm," in word for word in words)


def test_only_the_cpu_profile_picks_the_cpu_configurations(triton: Triton, ours: Path, tmp_path: Path) -> None:
    assert "--model-config-name=cpu" in command(triton, ours, tmp_path, ServeOptions(profile="cpu"))
    assert "--model-config-name=cpu" not in command(triton, ours, tmp_path, ServeOptions(profile="trtllm"))


def test_loading_models_again_needs_the_key_and_the_cpu_profile(triton: Triton, ours: Path, tmp_path: Path) -> None:
    def words(options: ServeOptions, key: str) -> str:
        layout.lay_out_backends(tmp_path / "backends", triton, ours)
        return " ".join(layout.server_command(options, triton, tmp_path / "backends", "prefix-", key))

    assert "--model-control-mode=explicit" in words(ServeOptions(), "key")
    restricted = f"model-repository,shared-memory,trace,logging:{layout.ADMIN_HEADER}=key"
    for profile in ("cpu", "trtllm"):
        assert f"--grpc-restricted-protocol={restricted}" in words(ServeOptions(profile=profile), "key")
        assert f"--http-restricted-api={restricted}" in words(ServeOptions(profile=profile), "key")
    assert "control-mode" not in words(ServeOptions(), "")
    assert "control-mode" not in words(ServeOptions(profile="trtllm"), "key")
    own = ServeOptions(triton_arguments=("--model-control-mode=poll",))
    assert words(own, "key").count("control-mode") == 1
    own = ServeOptions(triton_arguments=("--grpc-restricted-protocol=health:a=b",))
    assert words(own, "key").count("restricted") == 1
    assert "control-mode" not in words(own, "key")


def test_the_callers_own_settings_replace_ours_and_come_last(triton: Triton, ours: Path, tmp_path: Path) -> None:
    theirs = ("--backend-config=ssjf,thread-pool-size=9", "--exit-timeout-secs=1", "--log-verbose=1")
    words = command(triton, ours, tmp_path, ServeOptions(triton_arguments=theirs))
    assert [word for word in words if word.startswith("--backend-config=ssjf,thread")] == [theirs[0]]
    assert [word for word in words if word.startswith("--exit-timeout")] == [theirs[1]]
    assert words[-3:] == list(theirs)
