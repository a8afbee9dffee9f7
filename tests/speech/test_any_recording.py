"""Any recording: whatever it is wrapped and coded in, its words are the same.

One sample is encoded anew for every row. What is coded without loss must give the very same words
and times; what loses something may cost one word of the 32. (With FFmpeg 8 none of these does.)
"""

from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import pytest
from av.audio.resampler import AudioResampler

from resources.settings import MEDIA_SUFFIXES
from speech.engines import Hardware
from speech.media import LocalFile, MediaDecoder, read_flac
from speech.models import read_models
from speech.normalizing import TimedWord
from speech.pipeline import Transcriber, transcribe_file
from speech.scoring import score
from speech.types import SAMPLE_RATE, Samples, Seconds, Transcript
from tests.conftest import ROOT, SAMPLES

pytestmark = pytest.mark.xdist_group("any_recording")
MODEL = read_models(ROOT / "models.toml")["micro_whisper"]


class Row(NamedTuple):
    """How one file is written, and how much later than in the original its words may be.

    Not every container can tell how much silence an encoder put first.
    """

    file: str
    container: str
    codec: str
    rate_hz: int
    layout: str
    format: str = ""
    picture: bool = False
    late_s: Seconds = 0.001


LOSSY_WER = 1 / 32
EXACT = [
    Row("16_bit.wav", "wav", "pcm_s16le", 16_000, "mono"),
    Row("24_bit.wav", "wav", "pcm_s24le", 16_000, "stereo", "s32"),
    Row("32_bit.wav", "wav", "pcm_s32le", 16_000, "mono"),
    Row("float.wav", "wav", "pcm_f32le", 16_000, "mono"),
    Row("double.wav", "wav", "pcm_f64le", 16_000, "mono"),
    Row("16_bit.flac", "flac", "flac", 16_000, "stereo", "s16"),
    Row("24_bit.flac", "flac", "flac", 16_000, "mono", "s32"),
    Row("apple.aiff", "aiff", "pcm_s16be", 16_000, "mono"),
    Row("lossless.m4a", "ipod", "alac", 16_000, "mono", "s16p"),
    Row("raw.mov", "mov", "pcm_s16le", 16_000, "stereo", picture=True),
    Row("flac.mkv", "matroska", "flac", 16_000, "mono", "s16", picture=True),
    Row("pcm.avi", "avi", "pcm_s16le", 16_000, "mono", picture=True),
]
LOSSY = [
    # Another rate is another sound, if only by a hair.
    Row("44_khz.wav", "wav", "pcm_s16le", 44_100, "stereo"),
    Row("96_khz.wav", "wav", "pcm_s24le", 96_000, "stereo", "s32"),
    Row("surround.wav", "wav", "pcm_s16le", 48_000, "5.1"),
    Row("surround.flac", "flac", "flac", 48_000, "5.1", "s16"),
    Row("8_bit.wav", "wav", "pcm_u8", 16_000, "mono"),
    Row("telephone.wav", "wav", "pcm_mulaw", 8_000, "mono"),
    Row("music.mp3", "mp3", "libmp3lame", 44_100, "stereo"),
    Row("low.mp3", "mp3", "libmp3lame", 22_050, "mono"),
    Row("vorbis.ogg", "ogg", "vorbis", 44_100, "stereo"),
    Row("opus.ogg", "ogg", "libopus", 48_000, "mono"),
    Row("apple.m4a", "ipod", "aac", 44_100, "mono"),
    Row("raw.aac", "adts", "aac", 44_100, "stereo", late_s=0.03),
    Row("film.mp4", "mp4", "aac", 48_000, "5.1", picture=True),
    Row("film.mov", "mov", "aac", 44_100, "stereo", picture=True),
    Row("film.mkv", "matroska", "ac3", 48_000, "5.1", picture=True),
    Row("film.webm", "webm", "libopus", 48_000, "stereo", picture=True),
    Row("film.avi", "avi", "libmp3lame", 44_100, "stereo", picture=True, late_s=0.03),
    Row("broadcast.ts", "mpegts", "mp2", 48_000, "stereo", picture=True, late_s=0.03),
    Row("camera.ts", "mpegts", "aac", 48_000, "stereo", picture=True, late_s=0.03),
    Row("windows.asf", "asf", "wmav2", 44_100, "stereo", picture=True, late_s=0.05),
]


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    flac = tmp_path_factory.mktemp("spoken") / "audio.flac"
    with MediaDecoder() as decoder, LocalFile(SAMPLES / "school.mp4") as source:
        decoder.extract(source, "school.mp4", flac)
    return read_flac(flac)


@pytest.fixture(scope="module")
def transcriber() -> Transcriber:
    return Transcriber(MODEL, hardware=Hardware(threads=1))


def write(path: Path, row: Row, samples: Samples) -> None:
    """Encode samples as the row says; speech stands in both sides of stereo, in the centre of 5.1."""
    with av.open(str(path), "w", format=row.container) as output:
        picture: Any = None
        if row.picture:
            codec = {"webm": "libvpx-vp9"}.get(row.container, "mpeg4")
            picture = output.add_stream(codec, 10)
            picture.width, picture.height, picture.pix_fmt = 64, 64, "yuv420p"
        stream: Any = output.add_stream(row.codec, rate=row.rate_hz, layout=row.layout)
        stream.bit_rate = 96_000
        stream.options = {"strict": "experimental"}  # FFmpeg's own Vorbis, which no library helps here
        if row.format:
            stream.format = row.format
        packets = []
        if picture is not None:
            for _ in range(len(samples) // (SAMPLE_RATE // 10)):
                grey = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 90, np.uint8), format="rgb24")
                packets += picture.encode(grey)
            packets += picture.encode(None)
        packets += encoded(stream, row, samples)
        packets.sort(key=lambda packet: float(packet.dts * packet.time_base))
        for packet in packets:
            output.mux(packet)


def encoded(stream: Any, row: Row, samples: Samples) -> list[Any]:
    # FFmpeg would make each side of stereo quieter; in 5.1 it puts a voice in the centre.
    channels = 2 if row.layout == "stereo" else 1
    packed = np.repeat(samples, channels).reshape(1, -1)
    sound = av.AudioFrame.from_ndarray(packed, format="s16", layout="stereo" if channels == 2 else "mono")
    sound.sample_rate, sound.pts = SAMPLE_RATE, 0
    form = stream.codec_context.format or row.format or "s16"
    resampler = AudioResampler(form, row.layout, row.rate_hz)
    frames = [*resampler.resample(sound), *resampler.resample(None)]
    return [packet for frame in [*frames, None] for packet in stream.encode(frame)]


@pytest.fixture(scope="module")
def original(
    tmp_path_factory: pytest.TempPathFactory, spoken: Samples, transcriber: Transcriber
) -> Transcript:
    path = tmp_path_factory.mktemp("original") / EXACT[0].file
    write(path, EXACT[0], spoken)
    transcript = transcribe_file(transcriber, path)
    assert len(transcript.words) > 25
    return transcript


@pytest.mark.parametrize("row", [*EXACT, *LOSSY], ids=lambda row: row.file)
def test_its_words_are_the_same(
    row: Row, tmp_path: Path, spoken: Samples, original: Transcript, transcriber: Transcriber
) -> None:
    assert Path(row.file).suffix in MEDIA_SUFFIXES.split()
    write(tmp_path / row.file, row, spoken)
    heard = transcribe_file(transcriber, tmp_path / row.file)
    assert heard.duration_s == pytest.approx(original.duration_s, abs=0.15)
    if row in EXACT:
        assert heard.words == original.words
    said = [TimedWord(word.text, word.start_s) for word in original.words]
    result = score(said, [TimedWord(word.text, word.start_s) for word in heard.words])
    assert result.wer <= (0 if row in EXACT else LOSSY_WER)
    assert result.median_start_error_s is not None
    assert abs(result.median_start_error_s) <= row.late_s


def test_of_several_tracks_the_one_marked_as_default_is_heard_and_recorded(
    tmp_path: Path, spoken: Samples, original: Transcript, transcriber: Transcriber
) -> None:
    """A commentary, then the film itself: a documented choice, and SQL says which."""
    path = tmp_path / "film.mkv"
    tracks = [
        (Row("", "", "flac", SAMPLE_RATE, layout, "s16"), samples)
        for layout, samples in (("mono", spoken[::-1].copy()), ("stereo", spoken))
    ]
    with av.open(str(path), "w", format="matroska", options={"default_mode": "passthrough"}) as output:
        streams: list[Any] = [
            output.add_stream("flac", rate=SAMPLE_RATE, layout=row.layout, format=row.format)
            for row, _ in tracks
        ]
        streams[1].disposition = av.stream.Disposition.default
        for stream, (row, samples) in zip(streams, tracks, strict=True):
            for packet in encoded(stream, row, samples):
                output.mux(packet)
    with MediaDecoder() as decoder, LocalFile(path) as source:
        info = decoder.probe(source, path.name)
    assert (info.audio_stream, info.audio_streams, info.channels) == (1, 2, 2)
    assert transcribe_file(transcriber, path).words == original.words
