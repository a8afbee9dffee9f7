"""Speech with exact word times, by two synthesisers: flite's natural voices, espeak-ng's many.

flite comes with Debian (``apt-get install flite``), espeak-ng with the package espeakng-loader. Both
are reached through their libraries: neither command line says when a word starts.
"""

import ctypes
import re
from dataclasses import dataclass
from functools import cache
from math import gcd
from typing import Any, ClassVar, NamedTuple

import numpy as np

from speech.types import SAMPLE_RATE, Samples, Seconds

FLITE_VOICES = ("rms", "slt", "awb")
# Accents and speakers of espeak; those below are for evaluation alone.
_ACCENTS = ("en-us", "en", "en-gb-x-rp", "en-us-nyc")
_SPEAKERS = (
    *("", "m1", "m2", "m3", "m4", "m5", "m6", "m8", "f1", "f2", "f3", "f5"),
    *("Alex", "Alicia", "Andrea", "Andy", "Annie", "Denis", "Gene", "Hugo", "Lee", "Mario", "Michael"),
    *("adam", "anika", "antonio", "belinda", "boris", "david", "ed", "edward", "ian", "john", "linda"),
    *("max", "paul", "rob", "shelby", "steph", "victor", "zac"),
)
ESPEAK_VOICES = tuple(f"{a}+{s}" if s else a for a in _ACCENTS for s in _SPEAKERS)
UNSEEN_VOICES = ("espeak/en-us+m7", "espeak/en+f4", "espeak/en-gb-scotland")
SEEN_VOICES = (*(f"flite/{v}" for v in FLITE_VOICES), *(f"espeak/{v}" for v in ESPEAK_VOICES))

# flite's paths from a word to its times. A phone has only an end: it starts where the one before
# it, be that a pause or another word's phone, ends.
_STARTS = b"R:SylStructure.daughter1.daughter1.R:Segment.p.end"
_ENDS = b"R:SylStructure.daughtern.daughtern.R:Segment.end"


class SpokenWord(NamedTuple):
    """One spoken word; its times are in seconds from the start of the sound it is part of."""

    word: str
    start_s: Seconds
    end_s: Seconds


@dataclass(frozen=True, slots=True)
class Speech:
    """One spoken sentence."""

    samples: Samples
    words: tuple[SpokenWord, ...]

    def trimmed(self, before_s: Seconds = 0.02, after_s: Seconds = 0.05) -> "Speech":
        """Without the silence around its words."""
        start = max(0, round((self.words[0].start_s - before_s) * SAMPLE_RATE))
        end = round((self.words[-1].end_s + after_s) * SAMPLE_RATE)
        shift_s = start / SAMPLE_RATE
        words = tuple(SpokenWord(w, max(0.0, a - shift_s), b - shift_s) for w, a, b in self.words)
        return Speech(self.samples[start:end], words)


@cache
def speaker(voice: str) -> "Flite | Espeak":
    """The synthesiser for a voice such as ``flite/rms`` or ``espeak/en-us+f3``."""
    kind, _, name = voice.partition("/")
    return Flite(name) if kind == "flite" else Espeak(name)


def _resampled(samples: Samples, rate_hz: int) -> Samples:
    if rate_hz == SAMPLE_RATE:
        return samples
    from scipy.signal import resample_poly

    common = gcd(rate_hz, SAMPLE_RATE)
    sound = resample_poly(samples.astype(np.float32), SAMPLE_RATE // common, rate_hz // common)
    return np.asarray(np.clip(sound, -32768, 32767), np.int16)


class _Wave(ctypes.Structure):
    """flite's ``cst_wave``."""

    _fields_ = (
        ("type", ctypes.c_char_p),
        ("sample_rate", ctypes.c_int),
        ("num_samples", ctypes.c_int),
        ("num_channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    )


class _Voice(ctypes.Structure):
    """The head of flite's ``cst_voice``."""

    _fields_ = (("name", ctypes.c_char_p), ("features", ctypes.c_void_p))


class Flite:
    """One flite voice."""

    def __init__(self, voice: str) -> None:
        """Load the voice; OSError where flite or that voice is not installed."""
        lib = self._lib = ctypes.CDLL("libflite.so.1", mode=ctypes.RTLD_GLOBAL)
        for name in ("flite_synth_text", "utt_relation", "relation_head", "item_next", "utt_wave"):
            getattr(lib, name).restype = ctypes.c_void_p
        lib.ffeature_string.restype, lib.ffeature_float.restype = ctypes.c_char_p, ctypes.c_float
        lib.feat_set_float.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_float)
        voices: Any = ctypes.CDLL(f"libflite_cmu_us_{voice}.so.1")
        register = voices[f"register_cmu_us_{voice}"]
        register.restype = ctypes.c_void_p
        lib.flite_init()
        self._voice = ctypes.c_void_p(register(None))

    def say(self, text: str, stretch: float = 1.0) -> Speech:
        """Speak one sentence, ``stretch`` times as long as the voice would.

        Raises ValueError where flite's words are not exactly those written.
        """
        lib, pointer = self._lib, ctypes.c_void_p
        features = _Voice.from_address(self._voice.value or 0).features
        lib.feat_set_float(features, b"duration_stretch", stretch)
        # The voices draw their breath noise from the C library's generator: left alone, the sound
        # of a sentence would depend on all that was said before it.
        ctypes.CDLL(None).srand(1)
        utterance = pointer(lib.flite_synth_text(text.encode("ascii"), self._voice))
        item = pointer(lib.relation_head(pointer(lib.utt_relation(utterance, b"Word"))))
        words: list[SpokenWord] = []
        while item.value:
            name = lib.ffeature_string(item, b"name").decode("ascii")
            start_s, end_s = (float(lib.ffeature_float(item, path)) for path in (_STARTS, _ENDS))
            words.append(SpokenWord(name, start_s, end_s))
            item = pointer(lib.item_next(item))
        wave = _Wave.from_address(lib.utt_wave(utterance))
        samples = np.ctypeslib.as_array(wave.samples, (wave.num_samples,)).astype(np.int16)
        samples = _resampled(samples, wave.sample_rate)
        lib.delete_utterance(utterance)
        written = re.findall(r"[a-z]+", text.lower())
        if [word.word for word in words] != written:
            raise ValueError(f"flite says {[word.word for word in words]}, not {written}")
        return Speech(samples, tuple(words))


class _Event(ctypes.Structure):
    """espeak's ``espeak_EVENT``."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


_WORD_EVENT, _LAST_EVENT = 1, 0
_SYNCHRONOUS, _BY_CHARACTER, _UTF8 = 2, 1, 1
_RATE, _PITCH = 1, 3
_HEARD = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class Espeak:
    """One espeak voice; LookupError where there is none. All share the one state that the library holds."""

    _lib: ClassVar[Any] = None
    _rate_hz: ClassVar[int] = 0

    def __init__(self, voice: str) -> None:
        if Espeak._lib is None:
            import espeakng_loader

            Espeak._lib = ctypes.CDLL(espeakng_loader.get_library_path())
            data = espeakng_loader.get_data_path().encode()
            Espeak._rate_hz = Espeak._lib.espeak_Initialize(_SYNCHRONOUS, 0, data, 0)
        self._voice = voice.encode()
        if Espeak._lib.espeak_SetVoiceByName(self._voice):
            raise LookupError(f"espeak has no voice {voice}")

    def say(self, text: str, stretch: float = 1.0, pitch: int = 50) -> Speech:
        """Speak one sentence, ``stretch`` times as long as at 160 words a minute; pitch is 0 to 100.

        Raises ValueError where espeak runs two words into one.
        """
        lib = self._lib
        lib.espeak_SetVoiceByName(self._voice)
        lib.espeak_ng_SetRandSeed(1)  # some voices hiss by chance; by default another one in each process
        lib.espeak_SetParameter(_RATE, round(160 / stretch), 0)
        lib.espeak_SetParameter(_PITCH, pitch, 0)
        sound: list[Samples] = []
        starts: dict[int, Seconds] = {}

        def heard(samples: Any, count: int, events: Any) -> int:
            if count > 0 and samples:
                sound.append(np.ctypeslib.as_array(samples, (count,)).copy())
            n = 0
            while events[n].type != _LAST_EVENT:
                if events[n].type == _WORD_EVENT:
                    starts.setdefault(events[n].text_position - 1, events[n].audio_position / 1000)
                n += 1
            return 0

        callback = _HEARD(heard)
        lib.espeak_SetSynthCallback(callback)
        written = text.encode("ascii")
        lib.espeak_Synth(written, len(written) + 1, 0, _BY_CHARACTER, 0, _UTF8, None, None)
        samples = _resampled(np.concatenate(sound), self._rate_hz)
        positions = [match.start() for match in re.finditer(r"[a-z]+", text)]
        if not starts.keys() >= set(positions):
            raise ValueError(f"espeak does not tell all words of {text!r} apart")
        # espeak tells no ends: a word ends where the next one starts, the last one with the sound.
        loud = np.flatnonzero(np.convolve(np.abs(samples.astype(np.float32)), np.ones(160) / 160) > 330)
        edges = [*(starts[position] for position in positions), float(loud[-1]) / SAMPLE_RATE]
        words = zip(re.findall(r"[a-z]+", text), edges, edges[1:], strict=False)
        return Speech(samples, tuple(SpokenWord(*word) for word in words))
