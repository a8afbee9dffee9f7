"""What micro_whisper is trained with: the same network, true examples, a Whisper's tokenizer."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from micro_whisper.examples import FRAMES_PER_S, Sentence, collate, example
from micro_whisper.synthesis import SpokenWord
from micro_whisper.tokenizer import Tokens, build
from micro_whisper.vocabulary import WORDS, held_out, sentence
from speech.types import SAMPLE_RATE


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build()


@pytest.fixture(scope="module")
def tokens(tokenizer: Any) -> Tokens:
    return Tokens.of(tokenizer)


def bank() -> list[Sentence]:
    """Sentences of tones, a pitch for each word: what is said can be seen in the samples."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(20):
        words, parts, clock = [], [], 0.0
        for word in sentence(rng).split():
            time_s = np.arange(round(0.3 * SAMPLE_RATE)) / SAMPLE_RATE
            parts.append(np.sin(2 * np.pi * (300 + 20 * WORDS.index(word)) * time_s) * 9000)
            words.append(SpokenWord(word, clock, clock + 0.3))
            clock += 0.3
        made.append(Sentence(np.concatenate(parts).astype(np.int16), tuple(words)))
    return made


def once(words: list[str]) -> list[str]:
    """A word that is said twice in a row cannot be told from one in the frames."""
    return [word for n, word in enumerate(words) if n == 0 or words[n - 1] != word]


def test_muons_steps_have_no_large_and_small_directions() -> None:
    from micro_whisper.muon import Muon, orthogonal

    torch.manual_seed(0)
    for shape in ((2, 32, 32), (2, 16, 64), (2, 64, 16)):
        gradients = torch.randn(shape) @ torch.diag(torch.logspace(-1, 1, shape[-1]))
        moved = orthogonal(gradients)
        strengths = torch.linalg.svdvals(moved)
        assert strengths.quantile(0.1) > 0.5  # all but what was nearly nothing
        assert strengths.max() < 1.3
        assert (moved * gradients).sum() > 0
    wanted, weight = torch.randn(8, 8), nn.Parameter(torch.zeros(8, 8))
    optimizer = Muon([weight], lr=0.05)
    for _ in range(300):
        weight.grad = 2 * (weight.detach() - wanted)
        optimizer.step()
    torch.testing.assert_close(weight.detach(), wanted, atol=0.1, rtol=0)


def test_the_training_pass_is_transformers_own(tokenizer: Any, tokens: Tokens) -> None:
    from micro_whisper.network import ALIGNMENT_HEADS, decode, encode, new_network

    torch.manual_seed(0)
    network = new_network(len(tokenizer), tokens).eval()
    network.set_attn_implementation("eager")
    mel = torch.randn(2, 80, 3000)
    inputs = torch.tensor([[tokens.start, tokens.english, tokens.transcribe, 300, 301]] * 2)
    with torch.no_grad():
        theirs = network(input_features=mel, decoder_input_ids=inputs, output_attentions=True)
        encoded = encode(network.model.encoder, mel, torch.zeros(2, dtype=torch.long))
        decoded, gazes = decode(network.model.decoder, inputs, encoded)
    torch.testing.assert_close(network.proj_out(decoded), theirs.logits, atol=1e-4, rtol=1e-4)
    for gaze, (layer, head) in zip(gazes, ALIGNMENT_HEADS, strict=True):
        torch.testing.assert_close(gaze.exp(), theirs.cross_attentions[layer][:, head], atol=1e-5, rtol=1e-4)


def test_features_are_the_extractors(tokenizer: Any, tokens: Tokens) -> None:
    from transformers import WhisperFeatureExtractor

    from micro_whisper.train import Trainee

    sound = np.random.default_rng(0).standard_normal(30 * SAMPLE_RATE).astype(np.float32) * 0.1
    theirs = WhisperFeatureExtractor(feature_size=80)(sound, sampling_rate=SAMPLE_RATE).input_features
    ours = Trainee(len(tokenizer), tokens).features(torch.from_numpy(sound)[None])
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-3)


def test_the_tokenizers_numbers_stand_as_readers_expect(tokenizer: Any, tokens: Tokens) -> None:
    assert tokenizer.all_special_ids[-1] + 1 == tokens.first_timestamp
    assert tokenizer.convert_tokens_to_ids("<|30.00|>") == tokens.first_timestamp + 1500
    assert {len(pieces) for pieces in tokens.words.values()} > {1, 2}
    for word, pieces in tokens.words.items():
        assert tokenizer.decode(pieces) == f" {word}"


@pytest.mark.parametrize("seed", range(40))
def test_an_example_says_what_is_heard_in_it(tokenizer: Any, tokens: Tokens, seed: int) -> None:
    """Each learned word stands over its own sound: its span and its frames agree, in order."""
    made = example(np.random.default_rng(seed), bank(), tokens, 12.0, 0.0)
    assert len(made.inputs) == len(made.labels) == len(made.spans)
    assert made.labels[-1] == tokens.end
    text = [label for label in made.labels if 0 <= label < tokens.end]
    spoken = tokenizer.decode(text).replace(".", "").split()
    runs = [made.frames[0], *made.frames[1:][np.diff(made.frames) != 0]]
    heard = [WORDS[number - 1] for number in runs if number]
    # A timed window that ends inside a sentence does not write that sentence at all.
    assert once(spoken) == once(heard)[: len(once(spoken))]
    assert len(once(spoken)) >= len(once(heard)) - 8
    starts = [span[0] for span in made.spans if span]
    assert starts == pytest.approx(sorted(starts), abs=1e-3)  # samples are 0.06 ms


def test_a_batch_guides_attention_to_the_words_frames(tokens: Tokens) -> None:
    examples = [example(np.random.default_rng(seed), bank(), tokens, 5.0, 0.0) for seed in range(4)]
    batch = collate(examples, [0] * 4, tokens)
    assert batch.gaze.shape == (4, batch.inputs.shape[1], 5 * FRAMES_PER_S)
    sums = batch.gaze.sum(-1)
    assert ((sums - 1).abs().lt(1e-5) | sums.eq(0)).all()


def test_held_out_sentences_are_a_tenth_and_never_trained_on() -> None:
    from micro_whisper.train import synthesise

    rng = np.random.default_rng(0)
    share = np.mean([held_out(sentence(rng)) for _ in range(4000)])
    assert 0.08 < share < 0.12
    spoken = list(synthesise(seed=3, flite=0, espeak=150))
    assert not any(held_out(" ".join(word.word for word in made.words)) for made in spoken)
    assert all(made.words[-1].end_s <= len(made.samples) / SAMPLE_RATE + 0.06 for made in spoken)
