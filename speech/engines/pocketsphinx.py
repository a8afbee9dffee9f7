"""Engine ``pocketsphinx``: CMU's recogniser with the English model that its package carries.

Small, offline, open vocabulary, far from today's accuracy: the engine with which a clone works
before anything is downloaded. Options of a model version are the decoder's own parameters
(``beam``, ``fwdflat``, ``maxhmmpf`` ...), as its documentation names them.
"""

import re
from collections.abc import Sequence
from math import log
from typing import Any

import numpy as np

from speech.engines import Asked, Hardware, Heard
from speech.errors import EngineError, ModelError
from speech.models import ModelVersion
from speech.types import Seconds, Window, Word
from speech.weights import check_package

_ALTERNATIVE = re.compile(r"\(\d+\)$")  # "been(2)": the second pronunciation of "been"
_FRAME_S: Seconds = 0.01


class PocketSphinx:
    """A decoder and its model."""

    def __init__(self, model: ModelVersion) -> None:
        self._model = model
        check_package(model, "pocketsphinx")
        self._decoder = self._load()

    def _load(self) -> Any:
        from pocketsphinx import Decoder

        model = self._model
        try:
            # cmn=batch: the cepstral mean of each window alone, not one drifting along.
            return Decoder(loglevel="FATAL", **({"cmn": "batch"} | model.options))
        except (RuntimeError, ValueError, TypeError, KeyError) as error:
            raise ModelError(f"model {model.name}: pocketsphinx refuses its options: {error}") from error

    def transcribe(self, windows: Sequence[Window], asked: Asked) -> list[Heard]:
        """See :class:`speech.engines.Engine`; probabilities are posteriors over the word lattice."""
        heard = [tuple(self._hear(window)) for window in windows]
        return [
            Heard(
                words,
                asked.language,
                float(np.mean([log(max(w.probability, 1e-9)) for w in words])) if words else 0.0,
            )
            for words in heard
        ]

    def _hear(self, window: Window) -> list[Word]:
        decoder = self._decoder
        try:
            # Without this a window's words depend on the windows heard before it.
            decoder.reinit_feat()
            decoder.start_utt()
            decoder.process_raw(window.samples.tobytes(), full_utt=True)
            decoder.end_utt()
            heard = list(decoder.seg() or ())
        except RuntimeError as error:
            self._decoder = self._load()  # this one is stuck in the middle of an utterance
            raise EngineError(f"pocketsphinx failed at {window.start_s:.1f} s: {error}") from error
        return [
            Word(
                text=_ALTERNATIVE.sub("", piece.word),
                start_s=piece.start_frame * _FRAME_S,
                end_s=(piece.end_frame + 1) * _FRAME_S,
                probability=min(1.0, max(0.0, piece.prob)),
                timing_source="decoder",
            )
            for piece in heard
            if not piece.word.startswith(("<", "["))  # <s>, <sil>, [NOISE]
        ]


def load(model: ModelVersion, _: Hardware) -> PocketSphinx:
    """Entry point for :func:`speech.engines.load`. It runs on one core, whatever there is."""
    return PocketSphinx(model)
