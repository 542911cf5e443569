"""What the Triton stub and the inference process say to each other: plain frozen values, pickled over a socket pair."""

from __future__ import annotations

from dataclasses import dataclass

from openvino_llm.settings import EngineSettings, ModelFacts


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. `greedy` makes temperature, top_p, top_k and seed irrelevant; penalties always apply."""

    greedy: bool
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Generation:
    """One row of a request, checked and complete.

    `end_ids` end the answer and are not part of it; `stop_words` (token sequences) end it and are. `min_tokens` holds
    the end ids back. `log_probs` asks for the log probability of every token.
    """

    prompt: tuple[int, ...]
    max_tokens: int
    sampling: Sampling
    end_ids: tuple[int, ...] = ()
    stop_words: tuple[tuple[int, ...], ...] = ()
    min_tokens: int = 0
    log_probs: bool = False


@dataclass(frozen=True, slots=True)
class Configure:
    """First message to the inference process."""

    settings: EngineSettings
    facts: ModelFacts


@dataclass(frozen=True, slots=True)
class Start:
    """Queue a generation under `key`, unique for the life of the process."""

    key: int
    generation: Generation


@dataclass(frozen=True, slots=True)
class Cancel:
    """Forget these generations, running or waiting; unknown keys are ignored."""

    keys: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Ready:
    """The inference process has loaded the model and takes work."""

    load_seconds: float


@dataclass(frozen=True, slots=True)
class Alive:
    """The inference process turns its loop, busy or not; at least every worker.WATCH_PERIOD_S and one step."""


@dataclass(frozen=True, slots=True)
class Delta:
    """New tokens of one generation. `finished` marks its last delta; `error` its failure."""

    key: int
    token_ids: tuple[int, ...] = ()
    log_probs: tuple[float, ...] = ()
    finished: bool = False
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """All deltas of one step of the batch."""

    deltas: tuple[Delta, ...]


@dataclass(frozen=True, slots=True)
class Fatal:
    """The inference process cannot go on and exits after this message."""

    reason: str
