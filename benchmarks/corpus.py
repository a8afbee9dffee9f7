"""Synthetic speech with exact word times, as files; and shapes of larger Whispers with random weights."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from micro_whisper.evaluate import Spoken, recording
from micro_whisper.synthesis import ESPEAK_VOICES
from speech.types import SAMPLE_RATE, Samples, Seconds

ROOT = Path(__file__).parents[1]
MICRO = ROOT / "micro_whisper" / "checkpoint"
VOICES = [f"espeak/{name}" for name in ESPEAK_VOICES]

SHAPES = {
    "tiny": {"d_model": 384, "layers": 4, "heads": 6, "mels": 80},
    "base": {"d_model": 512, "layers": 6, "heads": 8, "mels": 80},
    "turbo": {"d_model": 1280, "layers": 32, "heads": 20, "mels": 128, "decoder_layers": 4},
}
"""Of openai/whisper-tiny, -base and -large-v3-turbo, as their configurations say."""
VOCABULARY = 51866
FORCED_TOKENS = 100


def speak(seed: int, lengths_s: list[Seconds]) -> Iterator[Spoken]:
    """Recordings of these lengths, with what is said in them and when."""
    rng = np.random.default_rng(seed)
    for length_s in lengths_s:
        yield recording(rng, VOICES, length_s)


def write_flac(path: Path, samples: Samples) -> Path:
    """A mono FLAC, as the platform extracts it."""
    with av.open(path, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=SAMPLE_RATE)
        stream.layout = "mono"
        for first in range(0, len(samples), 1 << 16):
            frame = av.AudioFrame.from_ndarray(samples[None, first : first + (1 << 16)], "s16", "mono")
            frame.sample_rate = SAMPLE_RATE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def random_checkpoint(folder: Path, shape: str) -> Path:
    """A Whisper of a shape with random weights, which never ends a text by itself.

    Its tokenizer is micro_whisper's, filled up with tokens that mean nothing. It writes words alone, so that
    every system has as many of them to time.
    """
    import torch
    from tokenizers import AddedToken
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperTokenizerFast,
    )

    torch.manual_seed(0)
    of = SHAPES[shape]
    tokenizer = WhisperTokenizerFast.from_pretrained(MICRO)
    filler = [f"\u2400{number}" for number in range(VOCABULARY - len(tokenizer))]
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in filler])
    small = json.loads((MICRO / "config.json").read_text())
    config = WhisperConfig(
        vocab_size=VOCABULARY,
        d_model=of["d_model"],
        encoder_layers=of["layers"],
        decoder_layers=of.get("decoder_layers", of["layers"]),
        encoder_attention_heads=of["heads"],
        decoder_attention_heads=of["heads"],
        encoder_ffn_dim=4 * of["d_model"],
        decoder_ffn_dim=4 * of["d_model"],
        num_mel_bins=of["mels"],
        **{
            name: small[name]
            for name in ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
        },
    )
    settings = GenerationConfig.from_pretrained(MICRO)
    layers, heads = config.decoder_layers, config.decoder_attention_heads
    settings.alignment_heads = [
        [layer, head] for layer in range(layers // 2, layers) for head in range(heads)
    ][:10]
    # Every token but plain ones is forbidden, the end above all.
    special = [*range(len(WhisperTokenizerFast.from_pretrained(MICRO)))]
    settings.suppress_tokens = sorted(
        {*settings.suppress_tokens, *(t for t in special if t >= settings.eos_token_id)}
    )
    network = WhisperForConditionalGeneration(config)
    words = {n for n in range(settings.eos_token_id) if re.fullmatch(" [a-z]+", tokenizer.decode([n]))}
    with torch.no_grad():  # tied to what is written: a row of zeros is never the likeliest of so many
        network.get_input_embeddings().weight[[n for n in range(VOCABULARY) if n not in words]] = 0
    network.generation_config = settings
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=of["mels"]).save_pretrained(folder)
    return folder


def converted(checkpoint: Path, folder: Path) -> Path:
    """The same for CTranslate2, in float32."""
    from ctranslate2.converters import TransformersConverter

    files = ["tokenizer.json", "preprocessor_config.json"]
    TransformersConverter(str(checkpoint), copy_files=files).convert(str(folder), force=True)
    return folder
