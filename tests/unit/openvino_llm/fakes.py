"""A model's facts, generations and a pipeline without OpenVINO."""

from __future__ import annotations

from pathlib import Path

from openvino_llm.batch import NewTokens
from openvino_llm.errors import EngineError
from openvino_llm.messages import Generation, Sampling
from openvino_llm.responses import RowChunk
from openvino_llm.settings import ModelFacts

FACTS = ModelFacts(Path("weights.gguf"), vocab_size=100, context_length=64, eos_token_ids=(2, 0))
GREEDY = Sampling(greedy=True)


def generation(
    prompt: int = 3,
    max_tokens: int = 5,
    end_ids: tuple[int, ...] = (2,),
    stop_words: tuple[tuple[int, ...], ...] = (),
    log_probs: bool = False,
) -> Generation:
    return Generation((7,) * prompt, max_tokens, GREEDY, end_ids, stop_words, 0, log_probs)


class FakeHandle:
    """Produces a scripted token a step; ends after `max_tokens` or with an end id, as OpenVINO does."""

    def __init__(self, script: list[int], generation: Generation):
        self.script = script[: generation.max_tokens]
        self.end_ids = generation.end_ids
        self.unread: list[int] = []
        self.finished = False
        self.dropped = False

    def advance(self) -> None:
        token = self.script.pop(0)
        self.unread.append(token)
        self.finished = not self.script or token in self.end_ids

    def read(self) -> NewTokens:
        new, self.unread = tuple(self.unread), []
        return NewTokens(new, tuple(-0.5 for _ in new), self.finished)

    def drop(self) -> None:
        self.dropped = True


class FakePipeline:
    """Answers `script` to every prompt; refuses prompts that begin with token 99."""

    def __init__(self, script: list[int]):
        self.script = script
        self.running: dict[int, FakeHandle] = {}

    def add(self, key: int, generation: Generation) -> FakeHandle:
        if generation.prompt[0] == 99:
            raise RuntimeError("no such prompt")
        self.running[key] = FakeHandle(list(self.script), generation)
        return self.running[key]

    def step(self) -> None:
        self.running = {key: handle for key, handle in self.running.items() if not handle.dropped}
        for handle in self.running.values():
            handle.advance()
        self.running = {key: handle for key, handle in self.running.items() if not handle.finished}


class FakeClient:
    """Records what it is sent; `gone` makes it look cancelled, `broken` makes every send fail."""

    def __init__(self, gone: bool = False, broken: bool = False):
        self.chunks: list[RowChunk] = []
        self.ends: list[str] = []
        self.gone = gone
        self.broken = broken

    def send(self, chunk: RowChunk, final: bool) -> None:
        if self.broken:
            raise OSError("broken pipe")
        self.chunks.append(chunk)
        if final:
            self.ends.append("final")

    def finish(self) -> None:
        self.ends.append("empty")

    def fail(self, error: EngineError) -> None:
        self.ends.append(f"{type(error).__name__}: {error}")

    def is_cancelled(self) -> bool:
        return self.gone

    @property
    def tokens(self) -> list[int]:
        return [token for chunk in self.chunks for token in chunk.output_ids]
