"""Engine ``faster_whisper``: Whispers that CTranslate2 has converted, in its own kernels.

In int8 small, on a CPU as on a GPU. faster-whisper loads them; batching, prompts and spelling are ours.
Options of a model version: ``compute_type`` (CTranslate2's, ``default`` is what the files have), ``beams``
and ``max_tokens`` of a window. Its ``runtime``, which changes no words: ``device_index``, one or a list of
GPUs that one process uses; ``num_workers``, batches at once on each; ``cpu_threads`` of each batch;
``download_root`` and ``local_files_only``, for weights of the hub.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, Field

from speech.engines import Asked, Hardware
from speech.engines.whisper_text import Lettering, Spans, Spoken, TimedEngine, Written
from speech.errors import ModelError, first_line
from speech.models import ModelVersion, options_of, runtime_of
from speech.types import SAMPLE_RATE, Window
from speech.weights import local_weights

_MEL_STEPS_S = 0.01
_LONGEST_S = 30.0


class Options(BaseModel, frozen=True, extra="forbid"):
    """What ``options`` of a model version may say."""

    compute_type: str = "default"
    beams: int = Field(default=1, ge=1, le=20)
    max_tokens: int = Field(default=224, ge=1, le=440)


class Runtime(BaseModel, frozen=True, extra="forbid"):
    """What ``runtime`` of a model version may say."""

    device_index: int | list[int] = 0
    cpu_threads: int = Field(default=0, ge=0)
    num_workers: int = Field(default=1, ge=1)
    download_root: str | None = None
    local_files_only: bool = False

    @property
    def indexes(self) -> list[int]:
        """The GPUs to use."""
        return self.device_index if isinstance(self.device_index, list) else [self.device_index]


class FasterWhisper(TimedEngine):
    """A converted checkpoint on a device, or on several."""

    def __init__(self, model: ModelVersion, hardware: Hardware) -> None:
        import ctranslate2
        from faster_whisper import WhisperModel

        ctranslate2.set_log_level(logging.ERROR)
        self._ct2: Any = ctranslate2
        self._model = model
        self._options, runtime = options_of(model, Options), runtime_of(model, Runtime)
        folder = local_weights(model)
        device, _, index = hardware.device.partition(":")
        indexes = [int(index)] if index else runtime.indexes
        try:
            loaded = WhisperModel(
                str(folder),
                device=device,
                device_index=indexes,
                compute_type=self._options.compute_type,
                cpu_threads=runtime.cpu_threads or hardware.threads // runtime.num_workers,
                num_workers=runtime.num_workers,
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise ModelError(
                f"model {model.name}: {folder} cannot be loaded on {hardware.device} by CTranslate2: "
                f"{first_line(error)}"
            ) from error
        self._network: Any = loaded.model
        self._features_of: Any = loaded.feature_extractor
        self.letters = Lettering.of_vocabulary(model.name, loaded.hf_tokenizer)
        self.letters.check(model.language)
        self._at_once = runtime.num_workers * len(indexes)
        self._several_devices = len(indexes) > 1
        self.device_name = str(self._network.device)

    def write(self, windows: Sequence[Window], asked: Asked) -> tuple[list["_Part"], list[Written]]:
        """See :class:`~speech.engines.whisper_text.TimedEngine`."""
        if self._at_once == 1:
            parts = [self._part(windows, asked)]
        else:
            size = -(-len(windows) // self._at_once)
            some = [windows[first : first + size] for first in range(0, len(windows), size)]
            with ThreadPoolExecutor(self._at_once) as threads:
                parts = list(threads.map(lambda part: self._part(part, asked), some))
        return parts, [text for part in parts for text in part.written]

    def _part(self, windows: Sequence[Window], asked: Asked) -> "_Part":
        encoded = self._network.encode(
            self._ct2.StorageView.from_array(np.stack([self._features(window) for window in windows])),
            to_cpu=self._several_devices,  # another device may be the one that decodes it
        )
        languages = self._languages(encoded, len(windows), asked.language)
        room = self.letters.longest // 2 - 8
        prompts = [self.letters.prompt(language, asked, room) for language in languages]
        generated = self._network.generate(
            encoded,
            prompts,
            beam_size=self._options.beams,
            # It writes half as many tokens, whatever the prompt, as long as that leaves room for them.
            max_length=min(2 * self._options.max_tokens, self.letters.longest),
            return_scores=True,
        )
        end = self.letters.end
        texts = [[token for token in one.sequences_ids[0] if token < end] for one in generated]
        # A score is a mean over what was written, and not over the end; source: faster-whisper.
        counts = [len(one.sequences_ids[0]) for one in generated]
        scores = [
            one.scores[0] * max(count, 1) / (count + 1) for one, count in zip(generated, counts, strict=True)
        ]
        frames = [round(window.duration_s / _MEL_STEPS_S) for window in windows]
        aligned = self._align(encoded, languages, texts, frames)
        written = [
            Written(text, sure, language, score)
            for text, (sure, _), language, score in zip(texts, aligned, languages, scores, strict=True)
        ]
        return _Part(encoded, frames, written, [spans for _, spans in aligned])

    def _features(self, window: Window) -> Any:
        """Whisper's log-mel spectrogram ``(m, 3000)``."""
        sound = np.zeros(int(_LONGEST_S * SAMPLE_RATE), np.float32)
        sound[: len(window.samples)] = window.samples
        return self._features_of(sound / 32768, padding=0).astype(np.float32)

    def _languages(self, encoded: Any, count: int, language: str) -> list[str]:
        if language != "auto":
            return [language] * count
        if not self._network.is_multilingual:
            return ["en"] * count
        return [best[0][0].strip("<|>") for best in self._network.detect_language(encoded)]

    def _align(
        self, encoded: Any, languages: Sequence[str], texts: Sequence[list[int]], frames: Sequence[int]
    ) -> list[tuple[list[float], Spans | None]]:
        """Probabilities and spans of each text's tokens: CTranslate2's own alignment.

        It gives every frame to a token: a pause is part of the word behind it.
        """
        found: list[tuple[list[float], Spans | None]] = [([], np.zeros((0, 2), np.int64)) for _ in texts]
        for language in sorted(set(languages)):
            start = self.letters.prompt(language, Asked(), 0)[:-1]
            # All of them each time, an empty one as some token: a batch on a GPU cannot be taken apart.
            some = [text or [self.letters.end - 1] for text in texts]
            for n, one in enumerate(self._network.align(encoded, start, some, list(frames))):
                if texts[n] and languages[n] == language:
                    tokens, at = np.array(one.alignments).T
                    starts = np.searchsorted(tokens, np.arange(len(texts[n]) + 1))
                    edges = at[np.minimum(starts, len(at) - 1)]
                    spans = np.stack([edges[:-1], edges[1:]], axis=1)
                    found[n] = (list(one.text_token_probs), spans)
        return found

    def look(
        self, seen: list["_Part"], _: Sequence[Written], as_spoken: Sequence[Spoken | None]
    ) -> list[Spans | None]:
        """See :class:`~speech.engines.whisper_text.TimedEngine`."""
        spans = [found for part in seen for found in part.spans]
        row = 0
        for part in seen:
            spoken = as_spoken[row : row + len(part.written)]
            if any(spoken):
                texts = [s.tokens if s else w.tokens for s, w in zip(spoken, part.written, strict=True)]
                languages = [text.language for text in part.written]
                again = self._align(part.encoded, languages, texts, part.frames)
                spans[row : row + len(spoken)] = [found for _, found in again]
            row += len(part.written)
        return spans


class _Part(NamedTuple):
    """What was heard at once: windows, the steps of their spectrograms, texts and their tokens' spans."""

    encoded: Any
    frames: list[int]
    written: list[Written]
    spans: list[Spans | None]


def load(model: ModelVersion, hardware: Hardware) -> FasterWhisper:
    """Entry point for :func:`speech.engines.load`."""
    return FasterWhisper(model, hardware)
