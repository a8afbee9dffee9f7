"""Engine ``whisper``: any checkpoint of the Whisper family, through transformers and torch.

Options of a model version: ``precision`` (``auto``, ``float32``, ``float16``, ``bfloat16``; auto is
float16 on CUDA and float32 elsewhere, so one that runs on both should say which) and ``beams`` (1: greedy).

A window is heard in two passes over one encoding. The first writes the text, without timestamps
and with the fast attention kernels, which tell nothing of where they look. The second goes over
the finished text at once and looks up the alignment heads alone: what transformers' own word
timestamps keep of every head, layer and step is most of their cost.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from speech.alignment import align
from speech.engines import Hardware
from speech.errors import EngineError, ModelError, first_line, what_is_wrong
from speech.models import ModelVersion
from speech.types import SAMPLE_RATE, Seconds, Window, Word, normalize_word
from speech.weights import local_weights

_FRAME_S: Seconds = 0.02  # of the encoder
_FRAME_SAMPLES = round(_FRAME_S * SAMPLE_RATE)
_OPENING = set("\"'\u201c\u00bf([{-")  # punctuation that belongs to the word behind it
_NO_SPACES = {"zh", "ja", "th", "lo", "my", "yue"}  # languages whose words no space separates


class Options(BaseModel, frozen=True, extra="forbid"):
    """What ``options`` of a model version may say."""

    precision: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    beams: int = Field(default=1, ge=1, le=20)


class Written(NamedTuple):
    """What the decoder wrote for one window: ``n`` tokens, their probabilities, ``(n, f)`` attention."""

    tokens: list[int]
    probabilities: list[float]
    attention: np.ndarray[Any, np.dtype[np.float32]]


class Whisper:
    """A checkpoint on a device."""

    def __init__(self, model: ModelVersion, hardware: Hardware) -> None:
        import torch
        from transformers.utils import logging

        folder = local_weights(model)  # while the bars of the hub's client may still be seen
        logging.disable_progress_bar()
        logging.set_verbosity_error()
        self._torch: Any = torch
        self._model = model
        self._batch_size = hardware.batch_size
        known = Options.model_fields.keys()
        if unknown := model.options.keys() - known:
            raise ModelError(
                f"model {model.name}: unknown options {sorted(unknown)}; known: {', '.join(known)}"
            )
        try:
            self._options = Options.model_validate(model.options)
        except ValidationError as error:
            wrong = what_is_wrong(error)
            raise ModelError(f"model {model.name}: its options are wrong: {wrong}") from error
        if hardware.threads:
            torch.set_num_threads(hardware.threads)
        self._device = self._choose_device(hardware.device)
        precision = self._options.precision
        if precision == "auto":
            precision = "float16" if self._device.type == "cuda" else "float32"
        self._dtype = getattr(torch, precision)
        self._load(folder)
        self._first_tokens, self._asked = self._prompt()

    def _choose_device(self, wanted: str) -> Any:
        torch = self._torch
        if wanted == "auto":
            cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
            wanted = "cuda" if cuda else "mps" if mps else "cpu"
        try:
            device = torch.device(wanted)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise ModelError(
                f"model {self._model.name}: this machine has no device {wanted!r}: {first_line(error)}"
            ) from error
        return device

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
        self._extract, self._tokenizer = processor.feature_extractor, processor.tokenizer
        config, settings = network.config, network.generation_config
        lacking = {"no_timestamps_token_id", "decoder_start_token_id"} - settings.to_dict().keys()
        if lacking:
            raise self._not_loaded(folder, f"its generation_config.json lacks {min(lacking)}")
        # Distilled checkpoints name heads of their teacher, whose decoder had more layers.
        self._heads = [
            (layer, head)
            for layer, head in getattr(settings, "alignment_heads", None) or ()
            if layer < config.decoder_layers and head < config.decoder_attention_heads
        ] or _upper_half(config)

    def _not_loaded(self, folder: Path, why: str) -> ModelError:
        return ModelError(
            f"model {self._model.name}: {folder} is no Whisper checkpoint that can be loaded: {why}"
        )

    def _prompt(self) -> tuple[list[int], dict[str, str]]:
        """The tokens before the text, and what ``generate`` is told so that it puts the same.

        A checkpoint for English alone takes neither language nor task.
        """
        settings, language = self._network.generation_config, self._model.language
        start, untimed = settings.decoder_start_token_id, settings.no_timestamps_token_id
        languages = getattr(settings, "lang_to_id", None) or {}
        if not getattr(settings, "is_multilingual", bool(languages)):
            if language != "en":
                raise ModelError(f"model {self._model.name} knows English only, not language {language!r}")
            return [start, untimed], {}
        if f"<|{language}|>" not in languages:
            raise ModelError(
                f"model {self._model.name} knows no language {language!r}; it is a code such as en or de"
            )
        task = settings.task_to_id["transcribe"]
        asked = {"language": language, "task": "transcribe"}
        return [start, languages[f"<|{language}|>"], task, untimed], asked

    def transcribe(self, windows: Sequence[Window]) -> list[list[Word]]:
        """See :class:`speech.engines.Engine`; a word's probability is the mean of its tokens'."""
        heard: list[list[Word]] = []
        for first in range(0, len(windows), self._batch_size):
            batch = windows[first : first + self._batch_size]
            try:
                written = self._write(batch)
            except RuntimeError as error:  # torch's own
                remedy = "; set a smaller batch_size" if "out of memory" in str(error) else ""
                where = f"at {batch[0].start_s:.1f} s on {self._device}"
                raise EngineError(f"torch failed {where}: {first_line(error)}{remedy}") from error
            heard += [self._words(window, text) for window, text in zip(batch, written, strict=True)]
        return heard

    def _write(self, windows: Sequence[Window]) -> list[Written]:
        from transformers.modeling_outputs import BaseModelOutput

        torch, network = self._torch, self._network
        end = network.config.eos_token_id
        sound = [window.samples.astype(np.float32) / 32768 for window in windows]
        features = self._extract(sound, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
        with torch.inference_mode():
            encoded = network.get_encoder()(features.to(self._device, self._dtype))
            generated = network.generate(
                # An object of its own: a beam search repeats the rows of the one that it is given.
                encoder_outputs=BaseModelOutput(last_hidden_state=encoded[0]),
                num_beams=self._options.beams,
                do_sample=False,
                return_timestamps=False,
                max_length=network.config.max_target_positions,
                force_unique_generate_call=True,  # a stray timestamp would make it go on seeking
                **self._asked,
            )
            # The prompt and all other special tokens, timestamps too, stand behind the end of text.
            texts = [[token for token in row if token < end] for row in generated.tolist()]
            longest = max(map(len, texts))
            prompt = self._first_tokens
            inputs = torch.tensor(
                [[*prompt, *text, *[end] * (longest - len(text))] for text in texts], device=self._device
            )
            with self._looking() as seen:
                logits = network(encoder_outputs=encoded, decoder_input_ids=inputs, use_cache=False).logits
            # Position p writes token p + 1: the last one of the prompt writes the first of the text.
            positions = slice(len(prompt) - 1, len(prompt) - 1 + longest)
            chosen = inputs[:, len(prompt) :, None]
            logits = logits[:, positions]
            sure = logits.gather(-1, chosen)[..., 0].float() - logits.logsumexp(-1).float()
            probabilities = sure.exp().cpu()
            attention = sum(seen)[:, positions].cpu().numpy() / len(self._heads)
        frames = [-(-len(window.samples) // _FRAME_SAMPLES) for window in windows]
        return [
            Written(
                text, probabilities[row, : len(text)].tolist(), attention[row, : len(text), : frames[row]]
            )
            for row, text in enumerate(texts)
        ]

    @contextmanager
    def _looking(self) -> Iterator[list[Any]]:
        """While open, a forward pass leaves here, a layer each, its alignment heads' sum ``(b, t, f)``."""
        seen: list[Any] = []

        def look(heads: list[int], attention: Any, hidden: tuple[Any], called: dict[str, Any]) -> None:
            split = (attention.num_heads, attention.head_dim)
            query = attention.q_proj(hidden[0]) * attention.scaling
            key = attention.k_proj(called["key_value_states"])
            query, key = (part.unflatten(-1, split)[:, :, heads].float() for part in (query, key))
            seen.append(self._torch.einsum("bthd,bfhd->bhtf", query, key).softmax(-1).sum(1))

        hooks = []
        for number, layer in enumerate(self._network.get_decoder().layers):
            if heads := [head for at, head in self._heads if at == number]:
                hooks.append(
                    layer.encoder_attn.register_forward_pre_hook(partial(look, heads), with_kwargs=True)
                )
        try:
            yield seen
        finally:
            for hook in hooks:
                hook.remove()

    def _words(self, window: Window, written: Written) -> list[Word]:
        source = "cross_attention"
        try:
            spans = align(written.attention) * _FRAME_S
        except ValueError:  # more tokens than sound: a loop; its words stand evenly
            edges = np.linspace(0, window.duration_s, len(written.tokens) + 1)
            spans, source = np.stack([edges[:-1], edges[1:]], axis=1), "interpolated"
        words = []
        for text, first, last in self._split(written.tokens):
            words.append(
                Word(
                    text=text,
                    start_s=float(spans[first, 0]),
                    end_s=float(spans[last, 1]),
                    probability=float(np.mean(written.probabilities[first : last + 1])),
                    timing_source=source,
                )
            )
        return words

    def _split(self, tokens: list[int]) -> list[tuple[str, int, int]]:
        """Words as ``(text, first token, last token)``; punctuation is in the text, not in the tokens."""
        words: list[tuple[str, int, int]] = []
        opening = ""
        for piece, first, last in self._pieces(tokens):
            text = piece.strip()
            apart = piece[:1].isspace() or self._model.language in _NO_SPACES or not words
            if normalize_word(piece) and (apart or opening):
                words.append((opening + text, first, last))
                opening = ""
            elif normalize_word(piece):
                before, began, _ = words[-1]
                words[-1] = (before + text, began, last)
            elif words and not (apart and set(text) <= _OPENING):
                before, began, ended = words[-1]
                words[-1] = (before + text, began, ended)
            else:
                opening += text
        if opening and words:
            words[-1] = (words[-1][0] + opening, *words[-1][1:])
        return words

    def _pieces(self, tokens: list[int]) -> Iterator[tuple[str, int, int]]:
        """Runs of tokens that are whole characters, a space and what follows it; often one token each."""
        first = 0
        for last in range(len(tokens)):
            text = self._tokenizer.decode(tokens[first : last + 1])
            if last == len(tokens) - 1 or not ("\ufffd" in text or text.isspace()):
                yield text, first, last
                first = last + 1


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
