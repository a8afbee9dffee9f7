"""Make the sample videos and the exact times of the words spoken in them.

Ten small files are written to ``videos/`` beside this script: four talks of the few words that
micro_whisper knows, in four voices and containers, two ordinary ones, one whose sound starts late,
one silent, one without sound and one that cannot be opened. What is said in them stands beside those with
speech: ``.ctm`` has each word with its times, ``.json`` says who can know them.

The speech is synthetic, so the truth is exact: the synthesiser decides where each phone ends,
and its own word-to-syllable-to-phone links say which phones belong to which word. Nothing is
aligned, estimated or typed in by hand.

Usage, in the project's folder (needs flite; neither the demo nor the tests do)::

    apt-get install flite
    python -m samples.make_samples

Two runs on one machine give the same bytes; another FFmpeg build may encode other bytes, but
what stands beside them stays the same.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.resampler import AudioResampler
from numpy.typing import NDArray

from micro_whisper.synthesis import Flite, SpokenWord
from micro_whisper.vocabulary import WORDS, held_out
from speech.types import SAMPLE_RATE, Samples

HERE = Path(__file__).resolve().parent
GAP_S = 0.3  # flite already pauses for some 0.35 s around a sentence: together 0.5 to 0.8 s
WIDTH, HEIGHT, FPS = 320, 180, 10
BARS, BAR_PITCH, BAR_WIDTH = 46, 6, 4  # even pixels, since chroma has half the resolution
HEAD_REACH = 62  # pixels from the middle to either end of the playhead
QUIET_S = 4.0  # length of the samples without speech
CORRUPT_BYTES = 20_000
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Sample:
    """What one video holds: its streams, the colours of its picture, its voice and its text.

    Without ``audio_codec`` there is no audio stream; without ``voice`` nobody speaks. The sound
    starts ``delay_s`` seconds after the picture.
    """

    file: str
    video_codec: str
    audio_codec: str
    rate_hz: int
    layout: str
    background: Colour
    accent: Colour
    voice: str = ""
    text: str = ""
    delay_s: float = 0.0


WEATHER = (
    "The weather will be warm and dry for most of the week. "
    "A little rain may fall in the hills on Friday night. "
    "By Sunday the sky should be clear again, so it is a good time to walk by the river."
)
LIBRARY = (
    "The library is open every day from nine in the morning. "
    "You can borrow five books at a time and keep them for a month. "
    "Please bring them back on time, so that other people can enjoy them. "
    "There is also a quiet room where you can work."
)
# Sentences that micro_whisper was not trained on, of the words that it knows.
STATION = (
    "The yellow car waits near the station. "
    "The train stops and the doctor walks quickly. "
    "The sister walks today near the station. "
    "The black train turns at nine. "
    "Today the doctor sleeps at the station."
)
STREET = (
    "The green bus waits near the school. "
    "The dog stops and the car walks today. "
    "The black bus waits near the bridge. "
    "The black car stops at zero. "
    "The purple bus runs near the school."
)
MARKET = (
    "On August ten the market is not green. "
    "Please call the farmer at ten. "
    "Call four five one nine. "
    "Today the farmer stops at the market. "
    "Seven and three is twenty."
)
SCHOOL = (
    "Please close the green door. "
    "Please open the gate and open the gate today. "
    "The teacher walks quickly near the garden. "
    "Please paint the blue window. "
    "Again the teacher is not green."
)
DELAYED = (
    "The picture starts first, and the sound comes in a moment later. "
    "Every word must still be found at the right time."
)
BLUE, BROWN = ((228, 239, 247), (52, 120, 176)), ((243, 237, 226), (150, 98, 52))
RED, GREEN = ((246, 232, 226), (196, 84, 60)), ((230, 241, 232), (58, 134, 92))
VIOLET, GREY = ((237, 232, 245), (116, 84, 170)), ((236, 238, 240), (110, 122, 134))
SAMPLES = (
    Sample("weather.mp4", "libx264", "aac", 48_000, "stereo", *BLUE, "rms", WEATHER),
    Sample("library.mp4", "libx264", "aac", 44_100, "mono", *BROWN, "slt", LIBRARY),
    Sample("street.mkv", "libx264", "libmp3lame", 44_100, "stereo", *RED, "awb", STREET),
    Sample("station.webm", "libvpx-vp9", "libopus", 48_000, "mono", *GREEN, "rms", STATION),
    Sample("market.mp4", "libx264", "aac", 48_000, "stereo", *BROWN, "rms", MARKET),
    Sample("school.mp4", "libx264", "aac", 44_100, "mono", *BLUE, "slt", SCHOOL),
    Sample("delayed_audio.mp4", "libx264", "aac", 48_000, "mono", *VIOLET, "rms", DELAYED, 1.5),
    Sample("silent.mp4", "libx264", "aac", 48_000, "mono", *GREY),
    Sample("soundless.mp4", "libx264", "", 0, "", *GREY),
)


def speak(sample: Sample) -> tuple[Samples, list[SpokenWord]]:
    """Speak a sample's text: 16 kHz samples, and its words in seconds on the video's timeline."""
    if not sample.voice:
        return np.zeros(round(QUIET_S * SAMPLE_RATE), np.int16), []
    flite = Flite(sample.voice)
    sound = np.zeros(0, np.int16)
    words: list[SpokenWord] = []
    for sentence in re.findall(r"\w[^.]*\.", sample.text):
        speech = flite.say(sentence)
        # Count real samples: the sound may be shorter than the last phone's announced end.
        shift_s = sample.delay_s + len(sound) / SAMPLE_RATE
        words += [SpokenWord(w.word, w.start_s + shift_s, w.end_s + shift_s) for w in speech.words]
        sound = np.concatenate([sound, speech.samples, np.zeros(round(GAP_S * SAMPLE_RATE), np.int16)])
    return sound, words


def vocabulary(text: str) -> str:
    """Who can know these words: ``micro_whisper``, or only a model with an ``open`` vocabulary."""
    sentences = [" ".join(re.findall("[a-z]+", part)) for part in text.lower().split(".")]
    if not all(word in WORDS for sentence in sentences for word in sentence.split()):
        return "open"
    if trained := [sentence for sentence in sentences if sentence and not held_out(sentence)]:
        raise ValueError(f"micro_whisper may have been trained on {trained}: say something else")
    return "micro_whisper"


def pictures(sample: Sample, sound: Samples, length_s: float) -> Iterator[NDArray[np.uint8]]:
    """RGB pictures of the waveform, played bars in the accent colour, with a moving playhead."""
    level = np.zeros(math.ceil(length_s * SAMPLE_RATE))
    start = round(sample.delay_s * SAMPLE_RATE)
    level[start : start + len(sound)] = sound
    loudness = np.array([np.sqrt(np.mean(part**2)) for part in np.array_split(level, BARS)])
    heights = 2.0 + 46.0 * (loudness / max(loudness.max(), 1.0)) ** 0.8
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] + 0.5
    left, middle = (WIDTH - BARS * BAR_PITCH) / 2 + 1, HEIGHT / 2
    index = np.clip((x - left) // BAR_PITCH, 0, BARS - 1).astype(int)
    radius = BAR_WIDTH / 2
    dx = x - (left + index * BAR_PITCH + radius)
    dy = np.maximum(np.abs(y - middle) - (heights[index] - radius), 0.0)
    bars = np.clip(radius + 0.5 - np.hypot(dx, dy), 0.0, 1.0)[..., None]
    background, accent = np.array(sample.background, float), np.array(sample.accent, float)
    canvas = np.clip(background * (1.03 - 0.08 * y / HEIGHT)[..., None], 0, 255)
    muted = 0.68 * background + 0.32 * accent
    for number in range(math.ceil(length_s * FPS)):
        head = left + (BARS * BAR_PITCH - 2) * number / (length_s * FPS)
        played = np.clip(head - x + 0.5, 0.0, 1.0)[..., None]
        picture = canvas + bars * (accent * played + muted * (1 - played) - canvas)
        line = np.clip(1.5 - np.abs(x - head), 0.0, 1.0) * (np.abs(y - middle) < HEAD_REACH)
        knob = np.clip(5.0 - np.hypot(x - head, y - (middle - HEAD_REACH)), 0.0, 1.0)
        cursor = np.maximum(line, knob)[..., None]
        yield np.round(picture + cursor * (0.75 * accent - picture)).astype(np.uint8)


def write_video(path: Path, sample: Sample, sound: Samples) -> None:
    """Encode one sample, its picture from 0 s and its sound from ``sample.delay_s`` seconds."""
    length_s = sample.delay_s + len(sound) / SAMPLE_RATE
    exact = {"flags": "+bitexact", "threads": "1"}
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        picture_options = (
            # No B-frames: with them a picture track needs an edit list of its own.
            {"crf": "27", "preset": "slow", "bf": "0", "tune": "animation"}
            if sample.video_codec == "libx264"
            else {"crf": "36", "b": "0", "lag-in-frames": "0", "row-mt": "0"}
        )
        video: Any = container.add_stream(sample.video_codec, FPS, options=picture_options | exact)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        packets: list[Any] = []
        if sample.audio_codec:
            audio: Any = container.add_stream(sample.audio_codec, sample.rate_hz, options=exact)
            audio.layout, audio.bit_rate = sample.layout, 56_000
            packets += encode_sound(audio, sample, sound)
        for number, picture in enumerate(pictures(sample, sound, length_s)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            packets += video.encode(frame)
        packets += video.encode(None)
        packets.sort(key=lambda packet: float(packet.dts * packet.time_base))
        for packet in packets:
            container.mux(packet)


def encode_sound(audio: Any, sample: Sample, sound: Samples) -> list[Any]:
    """Return the packets of a sound that starts ``sample.delay_s`` seconds in."""
    frame = av.AudioFrame.from_ndarray(sound[None, :], format="s16", layout="mono")
    frame.sample_rate = SAMPLE_RATE
    form = audio.codec_context.format or "fltp"
    packets: list[Any] = []
    resampler = AudioResampler(form, sample.layout, sample.rate_hz)
    start = pts = round(sample.delay_s * sample.rate_hz)
    for out in [*resampler.resample(frame), *resampler.resample(None)]:
        out.pts, out.time_base = pts, Fraction(1, sample.rate_hz)
        pts += out.samples
        packets += audio.encode(out)
    packets += audio.encode(None)
    # The encoder primes its decoder with a packet from before the start. A track that starts at
    # zero hides it behind an edit list; a later one would let it be heard, so it must not be there.
    return [packet for packet in packets if not sample.delay_s or packet.pts >= start]


def write_sidecars(video: Path, knows: str, words: list[SpokenWord]) -> None:
    """Write what is said in a video, and who can know its words."""
    timed = [(word, round(start, 3), round(end, 3)) for word, start, end in words]
    video.with_suffix(".ctm").write_text(
        "".join(f"{video.stem} 1 {start:.3f} {end - start:.3f} {word}\n" for word, start, end in timed)
    )
    video.with_suffix(".json").write_text(json.dumps({"metadata": {"vocabulary": knows}}) + "\n")


def main() -> None:
    """Write every sample video, and what is said in it."""
    folder = HERE / "videos"
    folder.mkdir(exist_ok=True)
    for sample in SAMPLES:
        sound, words = speak(sample)
        write_video(folder / sample.file, sample, sound)
        if words:
            write_sidecars(folder / sample.file, vocabulary(sample.text), words)
        print(f"{sample.file}: {len(words)} words, {(folder / sample.file).stat().st_size} bytes")
    # An upload that broke off: an MP4's index is written last, so its start alone cannot be read.
    whole = (folder / "library.mp4").read_bytes()
    (folder / "corrupt.mp4").write_bytes(whole[:CORRUPT_BYTES])


if __name__ == "__main__":
    main()
