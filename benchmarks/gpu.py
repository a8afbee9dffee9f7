"""``make bench-gpu``: large-v3-turbo's shape on a GPU, from files to timed words; out of memory for real."""

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from benchmarks.corpus import FORCED_TOKENS, MICRO, random_checkpoint, speak, write_flac
from benchmarks.report import Check, publish
from speech.engines import Asked, Hardware
from speech.listening import Listener
from speech.models import ModelVersion
from speech.pipeline import Transcriber
from speech.reading import Recording
from speech.scoring import TimedWord, score
from speech.types import SAMPLE_RATE, HeardWindow, Samples, Seconds
from speech.voice import windows

FILE_S: Seconds = 300.0
FILES = 4
"""Different ones; each is heard again and again, as a recording of its own."""


def end_to_end(model: ModelVersion, hardware: Hardware, files: list[Path], hours: float) -> float:
    """RTFx over so many hours of recordings, every worker loaded and warm."""
    count = max(1, round(hours * 3600 / FILE_S))
    with Transcriber(model, hardware, workers=0) as transcriber:
        few = 2 * hardware.batch_size * len(hardware.device.split(","))
        list(transcriber.run(Recording(str(n), files[n % FILES]) for n in range(-(-few * 30 // int(FILE_S)))))
        began = time.perf_counter()
        heard = list(transcriber.run(Recording(str(n), files[n % FILES]) for n in range(count)))
        took = time.perf_counter() - began
    assert len(heard) == count
    return count * FILE_S / took


def encoder_limit(folder: Path, device: str, batch_size: int) -> float:
    """RTFx if nothing were to be done but the encoder's work, over whole windows in half precision."""
    import torch
    from transformers import WhisperForConditionalGeneration

    encoder: Any = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float16).get_encoder()
    encoder = encoder.to(device).eval()
    sound = torch.randn(batch_size, encoder.config.num_mel_bins, 3000, dtype=torch.float16, device=device)
    took = []
    with torch.inference_mode():
        for _ in range(12):
            torch.cuda.synchronize()
            began = time.perf_counter()
            encoder(sound)
            torch.cuda.synchronize()
            took.append(time.perf_counter() - began)
    return batch_size * 30 / median(took[2:])


def out_of_memory(device: str, sound: Samples, batch_size: int) -> tuple[int, int]:
    """Words that differ where memory for a whole batch is lacking, and the batch that fits there.

    Of micro_whisper, which says words: random weights say something else for each rounding of a sum.
    """
    import torch

    model = ModelVersion("micro", "whisper", weights=str(MICRO), temperatures=())
    some = list(windows(sound, model.max_window_s))[:batch_size]

    def text(heard: list[HeardWindow]) -> list[str]:
        return [word.text for one in heard for word in one.words]

    roomy = Listener(model, Hardware(device, batch_size=batch_size))
    undisturbed = text(roomy.hear(some, Asked()))
    del roomy
    torch.cuda.empty_cache()
    tight = Listener(model, Hardware(device, batch_size=batch_size))
    torch.cuda.reset_peak_memory_stats(device)
    loaded = torch.cuda.memory_allocated(device)
    tight.hear(some[:1], Asked())
    one = torch.cuda.max_memory_allocated(device) - loaded
    # Room for some windows and not for all.
    allowed = loaded + max(2, len(some) // 3) * one
    _, total = torch.cuda.mem_get_info(device)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(allowed / total, device)
    halved = text(tight.hear(some, Asked()))
    torch.cuda.set_per_process_memory_fraction(1.0, device)
    assert tight.fits < len(some), "memory sufficed for a whole batch"
    edits = score(*([TimedWord(word, 0.0) for word in words] for words in (undisturbed, halved)))
    return edits.substitutions + edits.deletions + edits.insertions, tight.fits


def main(
    hours: Annotated[float, typer.Option(help="Of speech")] = 20.0,
    batch_size: Annotated[int, typer.Option(help="Windows at once")] = 64,
    devices: Annotated[str, typer.Option(help="One process each; a GPU may stand twice")] = "cuda:0, cuda:0",
    seed: Annotated[int, typer.Option(help="Other sentences")] = 1,
) -> None:
    """Measure, print, write ``results/gpu.json``."""
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("bench-gpu: this machine has no CUDA device, or its torch was built without CUDA")
    first = devices.split(",")[0].strip()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spoken = list(speak(seed, [FILE_S] * FILES))
        files = [
            write_flac(folder / f"{n}.flac", one.samples[: int(FILE_S * SAMPLE_RATE)])
            for n, one in enumerate(spoken)
        ]
        checkpoint = random_checkpoint(folder / "turbo", "turbo")
        model = ModelVersion(
            "turbo",
            "whisper",
            weights=str(checkpoint),
            temperatures=(),
            options={"precision": "float16", "max_tokens": FORCED_TOKENS},
        )
        limit = encoder_limit(checkpoint, first, batch_size)
        differences, fits = out_of_memory(first, spoken[0].samples, 8)
        rtfx = end_to_end(model, Hardware(devices, 0, batch_size), files, hours)
    typer.echo(
        f"{torch.cuda.get_device_name(0)}: {rtfx:.0f} times real time, {rtfx / limit:.0%} of the encoder's "
        f"{limit:.0f}; out of memory: 8 windows became {fits}",
        err=True,
    )
    checks = [
        Check.at_least("gpu_rtfx", rtfx, "times", 2000),
        Check("gpu_oom_word_differences", differences, "words", 0),
    ]
    all_hold = publish("gpu", checks, hours=hours, batch_size=batch_size, seed=seed, encoder_limit=limit)
    raise typer.Exit(0 if all_hold else 1)


if __name__ == "__main__":
    typer.run(main)
