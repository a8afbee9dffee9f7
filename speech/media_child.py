"""The child of :class:`speech.media.MediaDecoder`: the only code that touches untrusted media.

Started by :mod:`speech.confined`, it serves jobs on a socket until that is closed. Messages to the parent
are one letter and a body: ``R`` offset, length (answered with bytes); ``P`` a sign of life; ``D`` result as
JSON; ``E`` reason and message as JSON; ``W`` why nothing can be written.
"""

import errno
import io
import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from multiprocessing.connection import Connection
from typing import Any, cast

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet

from speech.confined import FILE_BYTES
from speech.cut_short import ends_early
from speech.errors import MediaError, Reason
from speech.timeline import LAYOUTS, Levels, Timeline
from speech.types import SAMPLE_RATE, Samples, Seconds

# Containers that hold media and nothing else. Playlists, concat scripts and SDP are text that makes
# FFmpeg open further files and addresses, whatever the object's name says.
CONTAINERS = "mov,matroska,webm,mpegts,mpeg,avi,flv,asf,wav,w64,aiff,caf,mp3,ogg,flac,aac,ac3,amr"
# Audio codecs by allow-list: FFmpeg ships hundreds of decoders, most of them for games of the 1990s.
# The picture is never decoded.
CODECS = (
    "aac,aac_latm,mp3,mp3float,mp2,mp2float,mp1,mp1float,opus,libopus,vorbis,flac,alac,ac3,eac3,dca,"
    "truehd,wmav1,wmav2,wmapro,wmalossless,amrnb,amrwb,gsm,gsm_ms,adpcm_ms,adpcm_ima_wav,adpcm_ima_qt,"
    "pcm_s8,pcm_u8,pcm_s16le,pcm_s16be,pcm_s24le,pcm_s24be,pcm_s32le,pcm_s32be,"
    "pcm_f32le,pcm_f32be,pcm_f64le,pcm_f64be,pcm_alaw,pcm_mulaw,pcm_bluray,pcm_dvd"
)
# The container whose clock is the one that players show; in all others it may start anywhere (MPEG-TS
# always does, a piece cut out of a longer Matroska file too), and players show the first moment as 0.
ABSOLUTE = "mov"

# Containers whose header, or last page, says how long the sound is. Others are measured by FFmpeg from what
# is there, and an MP3 without such a header by its bit rate, which may change.
TELL_LENGTH = frozenset({"mov", "matroska", "avi", "flv", "asf", "wav", "w64", "aiff", "caf", "flac", "ogg"})
LOST_SHARE = 0.5  # more of the sound than this gone with what is damaged: not a transcript but a guess
MISSING_S: Seconds = 1.0
MISSING_SHARE = 0.01
"""Lengths in headers are rounded: sound that ends earlier than both of these say was cut off."""


class ParentFile:
    """The video, as a seekable file whose bytes the parent hands over."""

    def __init__(self, pipe: Connection, size: int) -> None:
        self._pipe, self.size, self._at = pipe, size, 0

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; beyond the end is allowed, and reads as nothing."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, length: int = -1) -> bytes:
        """Up to ``length`` bytes; fewer only at the end."""
        wanted = self.size - self._at if length < 0 else min(length, self.size - self._at)
        if wanted <= 0:
            return b""
        self._pipe.send_bytes(b"R" + struct.pack("<QI", self._at, min(wanted, 1 << 24)))
        data = self._pipe.recv_bytes()
        self._at += len(data)
        return data


def open_media(file: ParentFile) -> InputContainer:
    """The video behind the pipe. Raises MediaError when it is no allowed container."""
    if file.size == 0:
        raise MediaError(Reason.UNREADABLE_MEDIA, "is empty (0 bytes); upload it again")
    options = {"format_whitelist": CONTAINERS, "codec_whitelist": CODECS, "protocol_whitelist": "none"}
    try:
        return av.open(file, "r", options=options, metadata_errors="replace", buffer_size=1 << 18)
    except (av.FFmpegError, ValueError, MemoryError) as error:
        raise MediaError(
            Reason.UNREADABLE_MEDIA,
            f"cannot be opened as media ({_why(error)}); upload it again, or convert it to MP4 or WAV",
        ) from error


def audio_of(container: InputContainer) -> AudioStream | None:
    """FFmpeg's choice: the default track, those for the hearing-impaired last, then the highest bit rate.

    Raises MediaError where there are tracks that nobody can make sense of: that is not a silent video.
    """
    best = cast("AudioStream | None", container.streams.best("audio"))
    if container.streams.audio and (best is None or best.codec_context is None):
        raise MediaError(
            Reason.UNDECODABLE_AUDIO,
            "has an audio stream that makes no sense (of no known codec, or of more than 512 channels); "
            "convert it to MP4 or WAV",
        )
    return best


class CannotWrite(Exception):
    """The FLAC cannot be written, which is not the video's fault."""


@contextmanager
def writing(flac: str) -> Iterator[None]:
    """Keeps errors of what is written apart from those of what is read."""
    try:
        yield
    except av.FFmpegError as error:
        if error.errno == errno.EFBIG:
            raise MediaError(Reason.TOO_LONG, f"makes more than {FILE_BYTES >> 30} GiB of audio") from error
        raise CannotWrite(f"cannot write {flac} ({_why(error)}); is there space on its disk?") from error


@contextmanager
def flac_file(path: str) -> Iterator[OutputContainer]:
    """The file that is written."""
    with writing(path):
        output = av.open(path, "w", format="flac", options={"fflags": "+bitexact"})
    try:
        yield output
    except BaseException:
        with suppress(av.FFmpegError):  # the first error says what happened
            output.close()
        raise
    with writing(path):
        output.close()


def origin_of(container: InputContainer) -> Seconds:
    """The container's time that a player shows as 0; sound before it (encoder delay) is not played."""
    names, start_s = container.format.name.split(","), (container.start_time or 0) / av.time_base
    if ABSOLUTE in names:
        return 0.0
    # FFmpeg tells of a transport stream whose clock wraps (after 26.5 h) that it began before 0.
    return start_s if "mpegts" in names else max(0.0, start_s)


def duration_of(container: InputContainer) -> Seconds | None:
    """The length that a player shows, as far as the container knows it."""
    if not container.duration:
        return None
    length_s = container.duration / av.time_base
    names = container.format.name.split(",")
    if ABSOLUTE in names:  # FFmpeg counts from the first sample, a player from the clock's 0
        length_s += max(0.0, (container.start_time or 0) / av.time_base)
    elif "matroska" in names:  # here FFmpeg counts from the clock's 0, a player from the first sample
        length_s -= origin_of(container)
    return round(max(0.0, length_s), 3)


def probe(container: InputContainer) -> dict[str, Any]:
    """The fields of :class:`speech.media.MediaInfo`."""
    stream = audio_of(container)
    video = next((s for s in container.streams.video), None)
    start = None
    if stream is not None and stream.start_time is not None and stream.time_base:
        start = round(float(stream.start_time * stream.time_base) - origin_of(container), 3)
    return {
        "container": container.format.name.split(",")[0],
        "duration_s": duration_of(container),
        "video_codec": video.codec.canonical_name if video else None,
        "audio_codec": stream.codec.canonical_name if stream else None,
        "audio_streams": len(container.streams.audio),
        "audio_stream": stream.index if stream else None,
        "audio_start_s": start,
        "sample_rate": stream.sample_rate if stream else None,
        "channels": stream.channels if stream else None,
    }


def packets_of(container: InputContainer) -> "Iterator[Packet[Any]]":
    """All there are, of all streams."""
    # PyAV 18.1.0 stumbles at the very end over streams that came up on the way, as damaged transport streams
    # have them; those that were known have given all by then.
    with suppress(IndexError):
        yield from container.demux()


def promised_end(container: InputContainer, stream: AudioStream) -> Seconds:
    """Where the sound ends on the video's timeline, as the header has it; 0 where it says nothing."""
    if not TELL_LENGTH.intersection(container.format.name.split(",")):
        return 0.0
    whole_s = duration_of(container) or 0.0
    if stream.duration and stream.time_base:
        begins = (stream.start_time or 0) * stream.time_base - origin_of(container)
        # An edit list may have dropped what the stream goes on with.
        return min(float(begins + stream.duration * stream.time_base), whole_s)
    return whole_s if len(container.streams) == 1 else 0.0  # the picture may go on for longer


def extract(
    pipe: Connection, container: InputContainer, file: ParentFile, flac: str, max_audio_s: Seconds
) -> dict[str, Any]:
    """Write the FLAC; the fields of :class:`speech.media.AudioInfo`."""
    stream = audio_of(container)
    if stream is None:
        raise MediaError(Reason.NO_AUDIO, "has no audio stream")
    stream.codec_context.thread_type = "NONE"  # threads make no audio decoder faster, and cost memory
    # A transport stream's length is a guess from the very timestamps that it should judge.
    end_s = None if container.format.name == "mpegts" else duration_of(container)
    # The sides of stereo may be two people; more channels are one scene, and are mixed.
    channels = 2 if stream.channels == 2 else 1
    timeline = Timeline(origin_of(container), end_s, channels)
    packets = errors = encoded = 0
    damaged = encrypted = False
    levels = Levels()
    with flac_file(flac) as output:
        encoder = output.add_stream("flac", rate=SAMPLE_RATE, layout=LAYOUTS[channels], format="s16")
        encoder.codec_context.flags |= av.codec.context.Flags.bitexact

        def write(chunks: Iterator[Samples]) -> None:
            for chunk in chunks:
                if timeline.written > max_audio_s * SAMPLE_RATE:
                    raise MediaError(Reason.TOO_LONG, f"holds more than {max_audio_s / 3600:.0f} h of audio")
                frame = AudioFrame.from_ndarray(chunk.reshape(1, -1), format="s16", layout=LAYOUTS[channels])
                frame.sample_rate = SAMPLE_RATE
                frame.time_base = Fraction(1, SAMPLE_RATE)
                frame.pts = timeline.written - len(chunk)
                with writing(flac):
                    output.mux(encoder.encode(frame))
                levels.add(chunk)

        # All streams: where a file is damaged, a packet of the picture may be the one to say so.
        for number, packet in enumerate(packets_of(container), start=1):
            damaged |= packet.is_corrupt
            if number % 500 == 0:
                pipe.send_bytes(b"P")
            if packet.stream is not stream:
                continue
            packets += 1
            encoded += packet.size
            encrypted |= packet.has_sidedata("encryption_info")
            try:
                frames = packet.decode()
            except av.FFmpegError:
                errors += 1
                continue
            for frame in frames:
                write(timeline.place(cast("AudioFrame", frame)))
        write(timeline.finish())
        if encrypted:
            raise MediaError(
                Reason.UNDECODABLE_AUDIO, "is encrypted, and its key is not in it; upload it without that"
            )
        heard_s = timeline.written / SAMPLE_RATE
        promised_s = min(promised_end(container, stream), max_audio_s)
        missing_s = max(0.0, promised_s - heard_s)
        cut_short = missing_s > max(MISSING_S, MISSING_SHARE * promised_s) or ends_early(
            file, file.size, container.format.name
        )
        lost_share = (timeline.filled / SAMPLE_RATE + missing_s) / max(promised_s, heard_s, 1e-9)
        damaged |= bool(errors) or cut_short
        if not timeline.written or errors > LOST_SHARE * packets or (damaged and lost_share > LOST_SHARE):
            raise MediaError(
                Reason.UNDECODABLE_AUDIO,
                f"{max(lost_share, errors / max(packets, 1)):.0%} of its sound is lost, since "
                f"{'its end is missing' if cut_short else 'it is damaged'}; upload it again",
            )
        with writing(flac):
            output.mux(encoder.encode(None))
    return {
        "duration_s": round(heard_s, 3),
        "decode_errors": errors,
        "lost_share": round(lost_share, 3),
        "cut_short": cut_short,
        "clock_jumps": timeline.clock_jumps,
        "kbit_per_s": round(encoded / 125 / heard_s, 1),
        "noise_db": levels.louder_than(0.1),
        "speech_db": levels.louder_than(0.9),
    }


def _why(error: Exception) -> str:
    return str(error.strerror if isinstance(error, av.FFmpegError) else error)


def serve(pipe: Connection) -> None:
    """Do jobs until the parent closes the pipe."""
    while True:
        try:
            job = json.loads(pipe.recv_bytes())
        except EOFError:
            return
        file = ParentFile(pipe, job["size"])
        try:
            with open_media(file) as container:
                if job["do"] == "probe":
                    result = probe(container)
                else:
                    result = extract(pipe, container, file, job["flac"], job["max_audio_s"])
            pipe.send_bytes(b"D" + json.dumps(result).encode())
        except CannotWrite as error:
            pipe.send_bytes(b"W" + str(error).encode())
        except (MediaError, av.FFmpegError, ValueError, ArithmeticError, MemoryError) as error:
            pipe.send_bytes(b"E" + json.dumps(_problem(error)).encode())


def _problem(error: Exception) -> dict[str, Any]:
    """As :mod:`speech.media` reads it."""
    if isinstance(error, MediaError):
        reason, message = error.reason, str(error)
    else:
        reason = Reason.UNDECODABLE_AUDIO
        message = f"its audio cannot be decoded ({_why(error)}); upload it again"
    spent = any(isinstance(one, MemoryError) for one in (error, error.__cause__))
    return {"reason": reason, "message": message, "spent": spent}
