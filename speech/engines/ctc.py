"""Engine ``ctc``: wav2vec2, HuBERT, parakeet and whatever else transformers loads as a CTC model.

Such a model says for every frame of sound which letter or piece of a word it is: no text is invented where
nobody speaks, and times are what it sees anyway. Options of a model version: ``precision``, as for whisper.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from speech.engines import Asked, Hardware, Heard
from speech.engines.torch_device import choose_device, dtype_of, name_of
from speech.errors import ModelError, WorkerBroken, first_line
from speech.models import ModelVersion, options_of
from speech.types import SAMPLE_RATE, Seconds, Window, Word
from speech.weights import local_weights


class Options(BaseModel, frozen=True, extra="forbid"):
    """What ``options`` of a model version may say."""

    precision: Literal["auto", "float32", "float16", "bfloat16"] = "auto"


class Ctc:
    """A checkpoint on a device."""

    def __init__(self, model: ModelVersion, hardware: Hardware) -> None:
        import torch
        from transformers import AutoModelForCTC, AutoProcessor
        from transformers.utils import logging

        folder = local_weights(model)
        logging.disable_progress_bar()
        logging.set_verbosity_error()
        self._torch: Any = torch
        self._model = model
        if hardware.threads:
            torch.set_num_threads(hardware.threads)
        self._device = choose_device(model.name, hardware.device)
        self.device_name = name_of(self._device)
        self._dtype = dtype_of(options_of(model, Options).precision, self._device)
        try:
            network = AutoModelForCTC.from_pretrained(
                folder, dtype=self._dtype, use_safetensors=True, local_files_only=True
            )
            processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError) as error:
            raise ModelError(
                f"model {model.name}: {folder} is no CTC checkpoint that can be loaded: {first_line(error)}"
            ) from error
        self._network: Any = network.to(self._device).eval()
        self._extract, self._tokenizer = processor.feature_extractor, processor.tokenizer
        self._blank = network.config.pad_token_id
        # Without a mask of its own (group norm), padding changes what is heard: one window at a time.
        self._masks = getattr(network.config, "feat_extract_norm", "layer") != "group"

    def transcribe(self, windows: Sequence[Window], asked: Asked) -> list[Heard]:
        """See :class:`speech.engines.Engine`; a word's probability is the mean of its frames'."""
        parts = [windows] if self._masks else [[window] for window in windows]
        return [
            self._heard(window, sure, asked)
            for part in parts
            for window, sure in zip(part, self._listen(part), strict=True)
        ]

    def _listen(self, windows: Sequence[Window]) -> Iterator[npt.NDArray[np.float32]]:
        """Log-probabilities of each window's frames, ``(f, v)``."""
        torch = self._torch
        sound = [window.samples.astype(np.float32) / 32768 for window in windows]
        inputs = self._extract(
            sound,
            sampling_rate=SAMPLE_RATE,
            padding=True,
            return_tensors="pt",
            return_attention_mask=self._masks,
        )
        inputs = {
            name: part.to(self._device, self._dtype if part.is_floating_point() else None)
            for name, part in inputs.items()
        }
        with torch.inference_mode():
            logits = self._network(**inputs).logits.float().log_softmax(-1).cpu().numpy()
        counted = inputs["attention_mask"].sum(-1) if "attention_mask" in inputs else None
        lengths = self._frames_of(counted).tolist() if counted is not None else [logits.shape[1]]
        for frames, count in zip(logits, lengths, strict=True):
            yield frames[: max(1, count)]

    def _frames_of(self, inputs: Any) -> Any:
        """Frames that come out for so many samples or spectra: wav2vec2 and its kin, else parakeet."""
        known = ("_get_feat_extract_output_lengths", "_get_subsampling_output_length")
        return next(getattr(self._network, name) for name in known if hasattr(self._network, name))(inputs)

    def _heard(self, window: Window, sure: npt.NDArray[np.float32], asked: Asked) -> Heard:
        best = sure.argmax(-1)
        certain = sure.max(-1)
        if np.isnan(certain).any():  # the likeliest would be the first there is, a blank: silence
            raise WorkerBroken("the engine gave probabilities that are no numbers")
        frame_s = window.duration_s / len(sure)
        # One letter is a run of frames; a blank between two runs makes two letters of them.
        starts = np.flatnonzero(np.diff(best, prepend=-1))
        runs = [
            (int(best[first]), int(first), int(last))
            for first, last in zip(starts, [*starts[1:], len(best)], strict=True)
            if best[first] != self._blank
        ]
        words = tuple(self._words(runs, np.exp(certain), frame_s))
        frames = [frame for _, first, last in runs for frame in range(first, last)]
        return Heard(words, asked.language, float(certain[frames].mean()) if frames else 0.0)

    def _words(
        self, runs: Sequence[tuple[int, int, int]], certain: npt.NDArray[np.float32], frame_s: Seconds
    ) -> Iterator[Word]:
        text, spans = "", list[tuple[int, int]]()
        # A word ends where the next piece begins with a space, as the tokenizer writes it.
        pieces = [self._piece(token) for token, _, _ in runs]
        for piece, (_, first, last) in zip([*pieces, " "], [*runs, (0, 0, 0)], strict=True):
            if piece.startswith(" ") and text.strip():
                yield Word(
                    text=text.strip(),
                    start_s=spans[0][0] * frame_s,
                    end_s=spans[-1][1] * frame_s,
                    probability=float(np.mean([certain[a:b].mean() for a, b in spans])),
                    timing_source="ctc",
                )
                text, spans = "", []
            text += piece
            if piece.strip():
                spans.append((first, last))

    def _piece(self, token: int) -> str:
        piece = str(self._tokenizer.convert_ids_to_tokens(token))
        if token in self._tokenizer.all_special_ids:
            return ""
        delimiter = getattr(self._tokenizer, "word_delimiter_token", None)
        return " " if piece == delimiter else piece.replace("\u2581", " ")


def load(model: ModelVersion, hardware: Hardware) -> Ctc:
    """Entry point for :func:`speech.engines.load`."""
    return Ctc(model, hardware)
