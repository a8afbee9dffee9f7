"""The network: a small Whisper, how it starts, and the forward pass it is trained with.

transformers' own forward pass takes 30 s windows only and gives no attention on its fast path;
the one here runs the same modules over windows of any length at any position, and returns the
cross-attention that training guides. ``tests/micro_whisper`` holds the two equal.
"""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - as everybody calls it

from micro_whisper.tokenizer import TIMESTAMPS, Tokens

ALIGNMENT_HEADS = ((1, 0), (1, 1), (2, 0), (2, 1))  # (decoder layer, head), guided towards a word's sound
# Where the heads of each encoder layer look at first, in frames from their own.
_REACH = ((-5, -2, 2, 5), (-12, -5, 5, 12), (-24, -9, 9, 24))
_PEAK = 9.0  # how sharply, in units of attention logits


def new_network(size: int, tokens: Tokens) -> Any:
    """A ``WhisperForConditionalGeneration`` of 2 million parameters with weights ready for training."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    network: Any = WhisperForConditionalGeneration(
        WhisperConfig(
            vocab_size=size,
            num_mel_bins=80,
            d_model=128,
            encoder_layers=3,
            decoder_layers=3,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=512,
            decoder_ffn_dim=512,
            max_source_positions=1500,
            max_target_positions=448,
            dropout=0.0,
            pad_token_id=tokens.end,
            bos_token_id=tokens.end,
            eos_token_id=tokens.end,
            decoder_start_token_id=tokens.start,
            suppress_tokens=None,
            begin_suppress_tokens=None,
            tie_word_embeddings=True,
        )
    )
    with torch.no_grad():
        _initialise(network, tokens)
    return network


def read_network(folder: Path) -> Any:
    """The network of a checkpoint, in float32."""
    from transformers import WhisperForConditionalGeneration

    return WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)


def _initialise(network: Any, tokens: Tokens) -> None:
    """Start where little has to be learned: encoder heads look near by, timestamps know their place.

    Whisper's own small normal weights drown in its sinusoids when data and time are short.
    """
    encoder, decoder = network.model.encoder, network.model.decoder
    for convolution in (encoder.conv1, encoder.conv2):
        nn.init.kaiming_normal_(convolution.weight)
    for layer, reach in zip(encoder.layers, _REACH, strict=True):
        _look_near_by(layer.self_attn, reach)
        nn.init.xavier_uniform_(layer.self_attn.v_proj.weight)
        nn.init.xavier_uniform_(layer.self_attn.out_proj.weight, 0.5)
    for layer in decoder.layers:
        for attention in (layer.self_attn, layer.encoder_attn):
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
                nn.init.xavier_uniform_(projection.weight)
            nn.init.xavier_uniform_(attention.out_proj.weight, 0.5)
    for layer in (*encoder.layers, *decoder.layers):
        nn.init.xavier_uniform_(layer.fc1.weight)
        nn.init.xavier_uniform_(layer.fc2.weight, 0.5)
    stamps = decoder.embed_tokens.weight[tokens.first_timestamp :]
    positions = encoder.embed_positions.weight
    stamps += 0.05 * positions[torch.arange(TIMESTAMPS).clamp(max=len(positions) - 1)]


def _look_near_by(attention: Any, reach: tuple[int, ...]) -> None:
    """Make each head's query the key of a frame ``reach`` frames away.

    The sine and cosine of a position at one frequency, turned by an angle, are those of another
    position: the turn is a rotation in the head's queries.
    """
    heads, width = attention.num_heads, attention.embed_dim
    half, size = width // 2, width // heads
    pairs = size // 2
    frequencies = torch.exp(-math.log(10000) / (half - 1) * torch.arange(half))
    scale = math.sqrt(_PEAK * math.sqrt(size) / pairs)
    query, key = attention.q_proj.weight, attention.k_proj.weight
    query *= 0.5
    key *= 0.5
    for head in range(heads):
        for pair in range(pairs):
            wave = 2 * pair + head % 2  # heads share the frequencies out among them
            angle = float(frequencies[wave]) * reach[head]
            sine, cosine = head * size + pair, head * size + pairs + pair
            key[sine, wave] += scale
            key[cosine, half + wave] += scale
            query[sine, wave] += scale * math.cos(angle)
            query[sine, half + wave] += scale * math.sin(angle)
            query[cosine, half + wave] += scale * math.cos(angle)
            query[cosine, wave] -= scale * math.sin(angle)


def encode(encoder: Any, mel: Tensor, offsets: Tensor, pieces: int = 1) -> Tensor:
    """``(b, 80, 2 f)`` log-mel to ``(b, f, 128)``, as if each window started at its offset ``(b,)``.

    With ``pieces`` above one, a frame sees its own piece of the window only: more than half of a
    training step is attention over 30 s, and hearing a word needs a second or two.
    """
    x = F.gelu(encoder.conv1(mel))
    x = F.gelu(encoder.conv2(x)).transpose(1, 2)
    x = x + encoder.embed_positions.weight[offsets[:, None] + torch.arange(x.shape[1])]
    x = x.unflatten(1, (pieces, -1)).flatten(0, 1)
    for layer in encoder.layers:
        h = layer.self_attn_layer_norm(x)
        x = x + _attend(layer.self_attn, h, h)
        x = x + _feed_forward(layer, x)
    x = x.unflatten(0, (-1, pieces)).flatten(1, 2)
    return encoder.layer_norm(x)  # type: ignore[no-any-return]


def decode(decoder: Any, inputs: Tensor, encoded: Tensor) -> tuple[Tensor, list[Tensor]]:
    """``(b, t)`` tokens to ``(b, t, 128)``, and ``(b, t, f)`` log attention of each alignment head."""
    x = decoder.embed_tokens(inputs) + decoder.embed_positions.weight[: inputs.shape[1]]
    gazes: list[Tensor] = []
    for number, layer in enumerate(decoder.layers):
        h = layer.self_attn_layer_norm(x)
        x = x + _attend(layer.self_attn, h, h, causal=True)
        h = layer.encoder_attn_layer_norm(x)
        x = x + _attend(layer.encoder_attn, h, encoded)
        query, key = (_heads(layer.encoder_attn, part) for part in _query_key(layer.encoder_attn, h, encoded))
        for at, head in ALIGNMENT_HEADS:
            if at == number:
                gazes.append((query[:, head] @ key[:, head].transpose(-1, -2)).log_softmax(-1))
        x = x + _feed_forward(layer, x)
    return decoder.layer_norm(x), gazes


def _query_key(attention: Any, x: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    return attention.q_proj(x) * attention.scaling, attention.k_proj(others)


def _heads(attention: Any, x: Tensor) -> Tensor:
    return x.view(*x.shape[:-1], attention.num_heads, attention.head_dim).transpose(1, 2)


def _attend(attention: Any, x: Tensor, others: Tensor, *, causal: bool = False) -> Tensor:
    query, key = _query_key(attention, x, others)
    mixed = F.scaled_dot_product_attention(
        _heads(attention, query),
        _heads(attention, key),
        _heads(attention, attention.v_proj(others)),
        is_causal=causal,
        scale=1.0,
    )
    return attention.out_proj(mixed.transpose(1, 2).flatten(-2))  # type: ignore[no-any-return]


def _feed_forward(layer: Any, x: Tensor) -> Tensor:
    return layer.fc2(F.gelu(layer.fc1(layer.final_layer_norm(x))))  # type: ignore[no-any-return]
