"""Conditions on purpose: the same recording through noise, a low bit rate or a telephone.

Nothing that is said moves: every twin, decoded again by :mod:`speech.media`, has its sound where the
original has it. So a video's reference, its word times too, is true of its twins as well.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from speech.errors import AsrError
from speech.types import SAMPLE_RATE, Samples
from speech.voice import FRAME, Voice

Floats: TypeAlias = npt.NDArray[np.float32]

TELEPHONE_RATE = 8_000
TELEPHONE_BAND = (300, 3400)
"""Hz. Source: ITU-T G.712, the band of a telephone channel; its samples are G.711's (mu-law)."""
TELEPHONE_TAPS = 513  # its edges are 100 Hz wide then

_BLOCK = 1 << 20  # samples; a multiple of FRAME. Noise comes again after so long: 66 s
_SURE = 0.5  # that somebody speaks; Silero's own default
_SPECTRA = 20_000  # frames are enough to know a voice's long-term spectrum: 11 minutes


@dataclass(frozen=True, slots=True)
class Condition:
    """What a recording goes through.

    ``level`` is in ``unit``: the signal-to-noise ratio in dB, or the bit rate in kbit/s of all that is in
    the file, of both sides of stereo together; None and empty where there is nothing to be set.
    """

    kind: str
    level: float | None
    unit: str
    suffix: str


CONDITIONS: dict[str, Condition] = {
    "noise_20db": Condition("noise", 20, "dB", ".flac"),
    "noise_10db": Condition("noise", 10, "dB", ".flac"),
    "noise_5db": Condition("noise", 5, "dB", ".flac"),
    "noise_0db": Condition("noise", 0, "dB", ".flac"),
    "mp3_32k": Condition("mp3", 32, "kbit/s", ".mp3"),
    "mp3_16k": Condition("mp3", 16, "kbit/s", ".mp3"),
    "opus_24k": Condition("opus", 24, "kbit/s", ".ogg"),
    "opus_12k": Condition("opus", 12, "kbit/s", ".ogg"),
    "opus_6k": Condition("opus", 6, "kbit/s", ".ogg"),
    "aac_24k": Condition("aac", 24, "kbit/s", ".m4a"),
    "telephone": Condition("telephone", None, "", ".wav"),
}


@dataclass(frozen=True, slots=True)
class _Encoding:
    """FFmpeg's names of a container and a codec. The container must say how long the encoder's delay is.

    So no raw AAC (64 ms late), and no Opus of 16 kHz in WebM (13 ms early as FFmpeg 8 reads it).
    """

    container: str
    codec: str
    rate: int = SAMPLE_RATE
    options: Mapping[str, str] = field(default_factory=dict)


_ENCODINGS = {
    "noise": _Encoding("flac", "flac"),
    "mp3": _Encoding("mp3", "libmp3lame"),
    "opus": _Encoding("ogg", "libopus", options={"vbr": "off"}),  # else pauses make the rate another
    "aac": _Encoding("ipod", "aac"),
    "telephone": _Encoding("wav", "pcm_mulaw", TELEPHONE_RATE),
}


def condition_of(name: str) -> Condition:
    """The condition of that name. Raises :class:`~speech.errors.AsrError` when there is none.

    >>> condition_of("mp3_16k").level
    16
    """
    try:
        return CONDITIONS[name]
    except KeyError:
        raise AsrError(
            f"{name}: there is no such condition; the known ones are {', '.join(CONDITIONS)}"
        ) from None


def degrade(samples: Samples, condition: str, seed: int) -> bytes:
    """A recording, ``(n,)`` or ``(2, n)`` of stereo, after that condition, as the bytes of a media file.

    The same samples and seed give the same bytes; only noise depends on the seed. Raises
    :class:`~speech.errors.AsrError` for an unknown condition.
    """
    wanted = condition_of(condition)
    if wanted.kind == "noise":
        assert wanted.level is not None
        samples = _noisy(samples, wanted.level, seed)
    elif wanted.kind == "telephone":
        samples = _telephone(samples)
    return _encoded(samples, _ENCODINGS[wanted.kind], wanted.level if wanted.unit == "kbit/s" else None)


def _noisy(samples: Samples, snr_db: float, seed: int) -> Samples:
    """With noise that has the long-term spectrum of the recording's own speech, as loud as is asked for.

    The ratio is that of the mean powers of the recording and of the noise over those frames of 32 ms in
    which Silero's network is sure that somebody speaks (all frames where nobody does): pauses do not count.
    Each side of stereo is measured for itself, and both hear one noise. What would clip is made quieter
    as a whole: that changes no ratio.
    """
    sides = np.atleast_2d(samples)
    noisy = np.empty(sides.shape, np.float32)
    for side, with_noise in zip(sides, noisy, strict=True):
        frames = np.pad(side, (0, -len(side) % FRAME)).reshape(-1, FRAME)
        speaks = _speaks(side)
        noise = _noise_like(frames[speaks[:: len(speaks) // _SPECTRA + 1]], seed)
        noise_powers = np.resize(_powers(noise.reshape(-1, FRAME)), len(frames))
        ratio = _powers(frames)[speaks].mean() / max(noise_powers[speaks].mean(), 1e-12)
        noise *= np.sqrt(ratio / 10 ** (snr_db / 10), dtype=np.float32)
        for first in range(0, len(side), _BLOCK):
            piece = side[first : first + _BLOCK]
            with_noise[first : first + _BLOCK] = piece + noise[: len(piece)]
    noisy *= min(1.0, 32767 / max(1.0, noisy.max(), -noisy.min()))
    return np.rint(noisy, out=noisy).astype(np.int16).reshape(samples.shape)


def _speaks(side: Samples) -> npt.NDArray[np.intp]:
    """The numbers of the frames in which somebody does; of all where nobody does."""
    voice = Voice()
    sure = [voice.hear(side[first : first + _BLOCK]) for first in range(0, len(side), _BLOCK)]
    speaks = np.concatenate(sure) >= _SURE
    return np.flatnonzero(speaks if speaks.any() else ~speaks)


def _powers(frames: Samples | Floats) -> npt.NDArray[np.float64]:
    powers: npt.NDArray[np.float64] = np.einsum("nf,nf->n", frames, frames, dtype=np.float64) / FRAME
    return powers


def _noise_like(speech: Samples, seed: int) -> Floats:
    """A block of Gaussian noise with the mean spectrum of these frames; its end leads into its beginning."""
    spectrum = np.square(np.abs(np.fft.rfft(speech * np.hanning(FRAME)))).mean(axis=0)
    spectrum[0] = 0.0  # a microphone's offset is no speech
    white = np.fft.rfft(np.random.default_rng(seed).standard_normal(_BLOCK))
    places = np.linspace(0, len(spectrum) - 1, len(white))
    shape = np.sqrt(np.interp(places, np.arange(len(spectrum)), spectrum))
    return np.fft.irfft(white * shape, _BLOCK).astype(np.float32)


def _telephone(samples: Samples) -> Samples:
    """The telephone's band at its rate, by a filter that delays nothing (a windowed sinc, symmetric)."""
    half = TELEPHONE_TAPS // 2
    at = np.arange(-half, half + 1)
    low, high = (np.sinc(2 * edge / SAMPLE_RATE * at) * 2 * edge / SAMPLE_RATE for edge in TELEPHONE_BAND)
    taps = ((high - low) * np.hamming(TELEPHONE_TAPS)).astype(np.float32)
    sides = [
        np.convolve(side.astype(np.float32), taps)[half : half + len(side) : SAMPLE_RATE // TELEPHONE_RATE]
        for side in np.atleast_2d(samples)
    ]
    heard = np.clip(np.rint(sides), -32768, 32767).astype(np.int16)
    return heard[0] if samples.ndim == 1 else heard


def _encoded(samples: Samples, encoding: _Encoding, kbit_per_s: float | None) -> bytes:
    """The samples, which have the encoding's rate, as a file without dates or names of encoders."""
    import av
    from av.audio.stream import AudioStream

    sides = np.atleast_2d(samples)
    layout = "mono" if len(sides) == 1 else "stereo"
    file = io.BytesIO()
    with av.open(file, "w", format=encoding.container, options={"fflags": "+bitexact"}) as output:
        stream = output.add_stream(
            encoding.codec, rate=encoding.rate, layout=layout, options=dict(encoding.options)
        )
        assert isinstance(stream, AudioStream)
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        if kbit_per_s is not None:
            stream.bit_rate = round(kbit_per_s * 1000)
        for first in range(0, sides.shape[1], _BLOCK):
            piece = np.ascontiguousarray(sides[:, first : first + _BLOCK].T).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(piece, format="s16", layout=layout)
            frame.sample_rate, frame.time_base, frame.pts = encoding.rate, Fraction(1, encoding.rate), first
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()
