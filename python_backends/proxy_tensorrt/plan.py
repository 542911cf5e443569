"""plan.json: what a TensorRT plan was built from and for, and whether that is what is here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from proxy_onnx.contract import METADATA_FILE
from proxy_onnx.errors import PlanError
from proxy_onnx.metadata import ProxyMetadata

FORMAT = 1
PLAN_FILE = "model.plan"
FACTS_FILE = "plan.json"
LIBRARIES = ("tensorrt", "tensorrt_rtx")
REMEDY = "build one here: scripts/build-proxy-plan, in the container that serves"


@dataclass(frozen=True, slots=True)
class Machine:
    """What runs a plan. compute_capability as in `9.0`."""

    library: str
    library_version: str
    gpu: str
    compute_capability: str


@dataclass(frozen=True, slots=True)
class Profile:
    """The optimisation profile: rows and tokens from 1 to `max`; kernels are chosen for `opt`."""

    opt_rows: int
    opt_length: int
    max_rows: int
    max_length: int


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """The validated content of plan.json. Digests are SHA-256 of whole files; comparison: plan against ONNX Runtime."""

    machine: Machine
    version_compatible: bool
    profile: Profile
    precision: str
    onnx_sha256: str
    plan_sha256: str
    proxy_sha256: str
    built: str
    comparison: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> PlanFacts:
        """Read plan.json in `folder`. Raises PlanError."""
        file = folder / FACTS_FILE
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
            return cls.from_document(document)
        except FileNotFoundError:
            raise PlanError(f"{file} is missing; {REMEDY}") from None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise PlanError(f"{file}: not a description of a plan: {error!r}; {REMEDY}") from error

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> PlanFacts:
        """From parsed JSON. Raises ValueError, TypeError or KeyError."""
        values = dict(document)
        if values.pop("format") != FORMAT:
            raise ValueError(f"format is {document['format']!r}; this version reads {FORMAT}")
        values["machine"], values["profile"] = Machine(**values["machine"]), Profile(**values["profile"])
        facts = cls(**values)
        if facts.machine.library not in LIBRARIES:
            raise ValueError(f"library is {facts.machine.library!r}; expected one of {', '.join(LIBRARIES)}")
        if any(type(value) is not int or value < 1 for value in asdict(facts.profile).values()):
            raise ValueError(f"profile is {asdict(facts.profile)}; expected whole numbers of at least 1")
        return facts

    def document(self) -> dict[str, Any]:
        """What `from_document` reads."""
        return {"format": FORMAT, **asdict(self)}

    def check_files(self, folder: Path, plan: bytes) -> None:
        """Raises PlanError when the plan or proxy.json in `folder` is another than the one described."""
        if sha256(plan) != self.plan_sha256:
            raise PlanError(f"{folder / PLAN_FILE} is not the plan that {FACTS_FILE} describes; {REMEDY}")
        if sha256((folder / METADATA_FILE).read_bytes()) != self.proxy_sha256:
            raise PlanError(
                f"{folder / PLAN_FILE} was built for another proxy than {METADATA_FILE} describes; {REMEDY}"
            )

    def check_machine(self, here: Machine) -> None:
        """Raises PlanError when the plan was built for another TensorRT or GPU than `here`."""
        for entry in fields(Machine):
            built, found = getattr(self.machine, entry.name), getattr(here, entry.name)
            fits: Callable[[str, str], bool] = self._version_fits if entry.name == "library_version" else str.__eq__
            if not fits(built, found):
                name = entry.name.replace("_", " ")
                raise PlanError(f"the plan was built for {name} {built}, here is {found}; {REMEDY}")

    def check_proxy(self, metadata: ProxyMetadata) -> None:
        """Raises PlanError when the plan's profile does not cover the proxy's longest rows."""
        if metadata.max_length > self.profile.max_length:
            raise PlanError(
                f"the plan takes rows of at most {self.profile.max_length} tokens, "
                f"proxy.json has max_length {metadata.max_length}; {REMEDY}"
            )

    def _version_fits(self, built: str, found: str) -> bool:
        """Exactly the same; a version-compatible plan also runs on later releases of the same major version."""
        if not self.version_compatible:
            return built == found
        old, new = _numbers(built), _numbers(found)
        return old[0] == new[0] and new >= old


def sha256(content: bytes) -> str:
    """Hexadecimal digest."""
    return hashlib.sha256(content).hexdigest()


def _numbers(version: str) -> list[int]:
    return [int(part) if part.isdigit() else 0 for part in version.split(".")]
