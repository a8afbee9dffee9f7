"""Engine ``whisper``: any checkpoint of the Whisper family, through transformers and torch.

Options of a model version: ``precision`` (``auto``, ``float32``, ``float16``, ``bfloat16``; auto is
float16 on CUDA and float32 elsewhere, so one that runs on both should say which), ``beams`` (1: greedy)
and ``max_tokens`` of a window.

A window is heard in two passes over one encoding. The first writes the text, without timestamps
and with the fast attention kernels, which tell nothing of where they look. The second goes over
the finished text at once and looks up the alignment heads alone: what transformers' own word
timestamps keep of every head, layer and step is most of their cost.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, Field

from speech.alignment import align
from speech.engines import Asked, Hardware
from speech.engines.torch_device import choose_device, dtype_of, name_of
from speech.engines.whisper_decoder import Decoder, Memory, Tensor
from speech.engines.whisper_text import (
    FRAME_SAMPLES,
    Chance,
    Lettering,
    Spans,
    Spoken,
    TimedEngine,
    Written,
)
from speech.errors import ModelError, first_line
from speech.models import ModelVersion, options_of
from speech.types import Window
from speech.weights import local_weights

_HOP, _FFT = 160, 400  # samples of a step and of a window of Whisper's spectrogram
_CHECKED_EVERY = 8  # tokens between two looks whether a batch on CUDA is done: each look waits for it
_SPECTRA = 4
_LOGITS_BYTES = 128 << 20  # of one part of a batch's logits


class Options(BaseModel, frozen=True, extra="forbid"):
    """What ``options`` of a model version may say."""

    precision: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    beams: int = Field(default=1, ge=1, le=20)
    max_tokens: int = Field(default=224, ge=1, le=440)


class Whisper(TimedEngine):
    """A checkpoint on a device."""

    def __init__(self, model: ModelVersion, hardware: Hardware) -> None:
        import torch
        from transformers.utils import logging

        folder = local_weights(model)  # while the bars of the hub's client may still be seen
        logging.disable_progress_bar()
        logging.set_verbosity_error()
        self._torch: Any = torch
        self._model = model
        self._options = options_of(model, Options)
        if hardware.threads:
            torch.set_num_threads(hardware.threads)
        self._device = choose_device(model.name, hardware.device)
        self.device_name = name_of(self._device)
        self._dtype = dtype_of(self._options.precision, self._device)
        self._load(folder)

    def _load(self, folder: Path) -> None:
        from safetensors import SafetensorError

        try:
            network, processor = _read(folder, self._dtype)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise self._not_loaded(folder, first_line(error)) from error
        try:
            self._network: Any = network.to(self._device).eval()
        except RuntimeError as error:
            raise ModelError(
                f"model {self._model.name} does not fit on {self._device}: {first_line(error)}; "
                "use fewer workers, or another device"
            ) from error
        config, settings = network.config, network.generation_config
        lacking = {"no_timestamps_token_id", "decoder_start_token_id"} - settings.to_dict().keys()
        if lacking:
            raise self._not_loaded(folder, f"its generation_config.json lacks {min(lacking)}")
        self.letters = Lettering(
            self._model.name,
            processor.tokenizer.backend_tokenizer,
            settings.to_dict() | {"eos_token_id": config.eos_token_id},
        )
        self.letters.check(self._model.language)
        # Distilled checkpoints name heads of their teacher, whose decoder had more layers.
        self._heads = [
            (layer, head)
            for layer, head in getattr(settings, "alignment_heads", None) or ()
            if layer < config.decoder_layers and head < config.decoder_attention_heads
        ] or _upper_half(config)
        self._decoder = Decoder(self._network)
        extractor, torch = processor.feature_extractor, self._torch
        self._length = extractor.n_samples
        filters = torch.tensor(np.asarray(extractor.mel_filters), dtype=torch.float32)
        self._filters = filters.T.contiguous().to(self._device)
        self._curve = torch.hann_window(_FFT, device=self._device)
        barred = torch.zeros(config.vocab_size, device=self._device)
        barred[self.letters.end + 1 :] = -np.inf  # languages, tasks, times
        barred[self.letters.forbidden] = -np.inf
        self._barred, self._barred_first = barred, barred.clone()
        self._barred_first[self.letters.forbidden_first] = -np.inf

    def _not_loaded(self, folder: Path, why: str) -> ModelError:
        return ModelError(
            f"model {self._model.name}: {folder} is no Whisper checkpoint that can be loaded: {why}"
        )

    def write(self, windows: Sequence[Window], asked: Asked) -> tuple["_Seen", list[Written]]:
        """See :class:`~speech.engines.whisper_text.TimedEngine`."""
        torch = self._torch
        with torch.inference_mode():
            encoded = self._network.get_encoder()(self._features(windows).to(self._dtype))[0]
            memory = self._decoder.remember(encoded)
            sound = memory.sound
            languages = self._languages(memory, len(windows), asked.language)
            prompts = self._prompts(languages, asked)
            if self._options.beams > 1 and not asked.temperature:
                texts = self._search(encoded, prompts)
            else:
                texts = self._draw(memory, prompts, self._chances(windows, asked.temperature))
            probabilities, ends, looked = self._judge(Memory(sound), prompts, texts)
        frames = [-(-len(window.samples) // FRAME_SAMPLES) for window in windows]
        return _Seen(sound, looked, prompts, frames), [
            Written(text, sure, language, float(np.log(np.maximum([*sure, end], 1e-9)).mean()))
            for text, sure, end, language in zip(texts, probabilities, ends, languages, strict=True)
        ]

    def _features(self, windows: Sequence[Window]) -> Tensor:
        """Whisper's log-mel spectrogram ``(b, m, 3000)``, of a few windows at a time: what is between takes
        ten times its memory.
        """
        parts = [windows[first : first + _SPECTRA] for first in range(0, len(windows), _SPECTRA)]
        return self._torch.cat([self._spectra(part) for part in parts])

    def _spectra(self, windows: Sequence[Window]) -> Tensor:
        """Only as far as there is sound they are computed.

        Source: Radford et al. 2022 and their code; the same as transformers' WhisperFeatureExtractor.
        """
        torch, longest = self._torch, max(len(window.samples) for window in windows)
        sound = np.zeros((len(windows), min(longest + _FFT, self._length)), np.float32)
        for row, window in zip(sound, windows, strict=True):
            row[: len(window.samples)] = window.samples
        waves = torch.from_numpy(sound).to(self._device) / 32768
        spectrum = torch.view_as_real(
            torch.stft(waves, _FFT, _HOP, window=self._curve, return_complex=True)[..., :-1]
        )
        power = spectrum.square().sum(-1)  # abs() of complex numbers takes a root for nothing
        mel = (self._filters @ power).clamp_(min=1e-10).log10_()
        highest = mel.amax(dim=(1, 2), keepdim=True)
        floor = torch.maximum(highest - 8, torch.full_like(highest, -10.0))
        whole = floor.expand(-1, mel.shape[1], self._length // _HOP).clone()
        whole[:, :, : mel.shape[2]] = torch.maximum(mel, highest - 8)
        return whole.add_(4).div_(4)

    def _languages(self, memory: Memory, count: int, language: str) -> list[str]:
        """Each window's: the one asked for, or what the model makes of the sound."""
        if language != "auto" or not self.letters.speaks_many:
            return ["en" if language == "auto" else language] * count
        names = list(self.letters.languages)
        start = self._tokens([[self.letters.start]] * count)
        logits = self._logits(self._decoder.read(memory, start)[:, 0])
        best = logits[:, list(self.letters.languages.values())].argmax(-1)
        return [names[number] for number in best.tolist()]

    def _prompts(self, languages: Sequence[str], asked: Asked) -> list[list[int]]:
        room = self._decoder.longest // 2 - 8
        return [self.letters.prompt(language, asked, room) for language in languages]

    def _draw(
        self, memory: Memory, prompts: list[list[int]], chances: list[Chance] | None
    ) -> list[list[int]]:
        """Write token by token: the likeliest, or one by chance."""
        torch, end = self._torch, self.letters.end
        hidden = self._decoder.read(memory, self._tokens(prompts))[:, -1]
        on_cuda = self._device.type == "cuda"
        most = self._most(prompts)
        rows = list(range(len(prompts)))  # those of the batch that are still written
        texts: list[list[int]] = [[] for _ in prompts]
        waiting: list[Tensor] = []
        for count in range(most):
            logits = self._logits(hidden) + (self._barred if count else self._barred_first)
            if chances:
                noise = np.stack([chances[row].draw(logits.shape[-1]) for row in rows])
                logits = logits + torch.from_numpy(noise).to(self._device)
            chosen = logits.argmax(-1)
            waiting.append(chosen)
            if on_cuda and len(waiting) < _CHECKED_EVERY and count < most - 1:
                hidden = self._decoder.write(memory, chosen, len(prompts[0]) + count)
                continue
            for step in torch.stack(waiting).tolist():
                for row, token in zip(rows, step, strict=True):
                    texts[row].append(token)
            waiting = []
            going = [n for n, row in enumerate(rows) if end not in texts[row]]
            if not going:
                break
            if not on_cuda and len(going) < len(rows):  # a graph's shapes stay as they are
                kept = torch.tensor(going)
                memory.keep(kept)
                chosen, rows = chosen[kept], [rows[n] for n in going]
            if count < most - 1:
                hidden = self._decoder.write(memory, chosen, len(prompts[0]) + count)
        return [text[: text.index(end)] if end in text else text for text in texts]

    def _search(self, encoded: Tensor, prompts: list[list[int]]) -> list[list[int]]:
        """Write by beam search, which is transformers' own."""
        from transformers import GenerationConfig, GenerationMixin
        from transformers.modeling_outputs import BaseModelOutput

        settings = self._network.generation_config
        asked = GenerationConfig(
            num_beams=self._options.beams,
            do_sample=False,
            max_new_tokens=self._most(prompts),
            suppress_tokens=[*self.letters.forbidden, *range(self.letters.end + 1, len(self._barred))],
            begin_suppress_tokens=self.letters.forbidden_first or None,
            eos_token_id=self.letters.end,
            pad_token_id=self.letters.end,
            decoder_start_token_id=self.letters.start,
            bos_token_id=settings.bos_token_id,
        )
        # Not Whisper's own generate(), which would put a prompt of its own before ours.
        written = GenerationMixin.generate(
            self._network,
            # An object of its own: a beam search repeats the rows of the one that it is given.
            encoder_outputs=BaseModelOutput(last_hidden_state=encoded),
            decoder_input_ids=self._tokens(prompts),
            generation_config=asked,
        )
        end, first = self.letters.end, len(prompts[0])
        return [[token for token in row[first:] if token != end] for row in written.tolist()]

    def _judge(
        self, memory: Memory, prompts: list[list[int]], texts: list[list[int]]
    ) -> tuple[list[list[float]], list[float], Tensor]:
        """Go over finished texts: probabilities of tokens and of ends, and where each looks ``(b, t, f)``."""
        torch, first, longest = self._torch, len(prompts[0]), max(map(len, texts)) + 1
        inputs = self._padded(prompts, texts)
        hidden, looked = self._decoder.read(memory, inputs, self._heads)
        # Position p writes token p + 1: the last one of the prompt writes the first of the text.
        positions = slice(first - 1, first - 1 + longest)
        hidden, chosen = hidden[:, positions], inputs[:, first:, None]
        rows = max(1, _LOGITS_BYTES // (longest * len(self._barred) * 4))
        parts = []
        for row in range(0, len(texts), rows):
            logits = self._logits(hidden[row : row + rows])
            parts.append((logits.gather(-1, chosen[row : row + rows])[..., 0] - logits.logsumexp(-1)).exp())
        sure = torch.cat(parts).tolist()
        texts_sure = [row[: len(text)] for row, text in zip(sure, texts, strict=True)]
        ends = [row[len(text)] for row, text in zip(sure, texts, strict=True)]
        return texts_sure, ends, looked[:, positions]

    def look(
        self, seen: "_Seen", written: Sequence[Written], as_spoken: Sequence[Spoken | None]
    ) -> list[Spans | None]:
        """See :class:`~speech.engines.whisper_text.TimedEngine`."""
        attention = list(seen.looked.float().cpu().numpy())
        texts = [text.tokens for text in written]
        if spelled := {row: spoken.tokens for row, spoken in enumerate(as_spoken) if spoken}:
            some, rows = list(spelled.values()), list(spelled)
            for row, tokens in spelled.items():
                texts[row] = tokens
            prompts = [seen.prompts[row] for row in rows]
            with self._torch.inference_mode():
                memory = Memory([(key[rows], value[rows]) for key, value in seen.sound])
                *_, looked = self._judge(memory, prompts, some)
            for row, where in zip(rows, looked.float().cpu().numpy(), strict=True):
                attention[row] = where
        return align(
            [row[: len(text), :count] for row, text, count in zip(attention, texts, seen.frames, strict=True)]
        )

    def _most(self, prompts: list[list[int]]) -> int:
        """Tokens that a text may have; one place is for its end."""
        room: int = self._decoder.longest - len(prompts[0]) - 1
        return min(self._options.max_tokens, room)

    def let_go(self) -> None:
        """Give back memory that is only kept to be quick."""
        self._decoder.let_go()

    def _padded(self, prompts: list[list[int]], texts: list[list[int]]) -> Tensor:
        longest = max(map(len, texts)) + 1  # behind the longest, too, stands an end
        return self._tokens(
            [
                [*prompt, *text, *[self.letters.end] * (longest - len(text))]
                for prompt, text in zip(prompts, texts, strict=True)
            ]
        )

    def _tokens(self, rows: list[list[int]]) -> Tensor:
        return self._torch.tensor(rows, device=self._device)

    def _logits(self, hidden: Tensor) -> Tensor:
        return self._network.proj_out(hidden).float()

    def _chances(self, windows: Sequence[Window], temperature: float) -> list[Chance] | None:
        return [Chance(window, temperature) for window in windows] if temperature else None


class _Seen(NamedTuple):
    """What is kept of a batch between writing and timing: its sound, where its tokens looked ``(b, t, f)``,
    what they were written after, and how many frames have sound.
    """

    sound: list[tuple[Tensor, Tensor]]
    looked: Tensor
    prompts: list[list[int]]
    frames: list[int]


def _read(folder: Path, dtype: Any) -> tuple[Any, Any]:
    """The network and its processor; ValueError for what is not a whole Whisper."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperProcessor

    config, _ = WhisperConfig.get_config_dict(folder, local_files_only=True)
    if config.get("model_type") != "whisper":
        raise ValueError(f"its config.json says model_type {config.get('model_type')!r}")
    if not any((folder / name).exists() for name in ("tokenizer.json", "vocab.json")):
        raise ValueError("it lacks tokenizer.json")  # transformers would make up an empty one
    network, report = WhisperForConditionalGeneration.from_pretrained(
        folder, dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True
    )
    if missing := set(report["missing_keys"]) - {"proj_out.weight"}:  # tied to the embedding
        raise ValueError(f"it lacks weights, {min(missing)} among them")
    return network, WhisperProcessor.from_pretrained(folder, local_files_only=True)


def _upper_half(config: Any) -> list[tuple[int, int]]:
    """All heads of the upper decoder layers, for a checkpoint that names no alignment heads.

    Source: the original Whisper code does the same.
    """
    layers, heads = config.decoder_layers, config.decoder_attention_heads
    return [(layer, head) for layer in range(layers // 2, layers) for head in range(heads)]


def load(model: ModelVersion, hardware: Hardware) -> Whisper:
    """Entry point for :func:`speech.engines.load`."""
    return Whisper(model, hardware)
