"""Write a trained network as a checkpoint that transformers, and its converters, read like any Whisper."""

from pathlib import Path
from typing import Any

from micro_whisper.network import ALIGNMENT_HEADS


def export(network: Any, tokenizer: Any, folder: Path) -> None:
    """Weights in half precision as safetensors, configuration, tokenizer and feature extractor."""
    from transformers import GenerationConfig, WhisperFeatureExtractor, WhisperProcessor
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    number = tokenizer.convert_tokens_to_ids
    end, start = number("<|endoftext|>"), number("<|startoftranscript|>")
    never = ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>"]
    network.generation_config = GenerationConfig(
        decoder_start_token_id=start,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        max_length=448,
        is_multilingual=True,
        lang_to_id={f"<|{name}|>": number(f"<|{name}|>") for name in list(LANGUAGES)[:99]},
        task_to_id={task: number(f"<|{task}|>") for task in ("translate", "transcribe")},
        no_timestamps_token_id=number("<|notimestamps|>"),
        prev_sot_token_id=number("<|startofprev|>"),
        alignment_heads=[list(head) for head in ALIGNMENT_HEADS],
        max_initial_timestamp_index=50,
        return_timestamps=False,
        suppress_tokens=[start, *number(never)],
        begin_suppress_tokens=[number("\u0120")],  # a space and nothing else
    )
    extractor = WhisperFeatureExtractor(feature_size=80)
    network.half().save_pretrained(folder)
    WhisperProcessor(extractor, tokenizer).save_pretrained(folder)
    extractor.save_pretrained(folder)  # preprocessor_config.json, which converters and faster-whisper want
