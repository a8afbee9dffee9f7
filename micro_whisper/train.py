"""Train micro_whisper from nothing: synthesise speech, train, write the checkpoint.

Usage (needs flite, ``pip install -e '.[train]'``, and five hours on two cores)::

    apt-get install flite
    python -m micro_whisper.train

What it writes stands in ``micro_whisper/build``: the speech, a state from which an interrupted
training goes on by itself, and ``checkpoint``, which :mod:`micro_whisper.evaluate` judges.
"""

import hashlib
import io
import math
import pickle
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import typer
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - as everybody calls it
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset

from micro_whisper.examples import FRAMES_PER_S, IGNORED, Batch, Sentence, collate, example
from micro_whisper.export import export
from micro_whisper.muon import Muon
from micro_whisper.network import decode, encode, new_network, read_network
from micro_whisper.synthesis import ESPEAK_VOICES, FLITE_VOICES, Espeak, speaker
from micro_whisper.tokenizer import TIMESTAMPS, Tokens, build
from micro_whisper.vocabulary import WORDS, held_out, sentence
from speech.types import SAMPLE_RATE

BUILD = Path(__file__).with_name("build")


class Stage(NamedTuple):
    """So many steps on windows of one duration; ``pieces`` of them the encoder may see at a time."""

    duration_s: float
    batch: int
    steps: int
    pieces: tuple[int, ...]


class Cycle(NamedTuple):
    """One rise and fall of the learning rate, up to ``peak`` of the highest.

    It starts from the weights that the cycle before it ended with, and hears so many sentences of
    each synthesiser beside those of the cycles before.
    """

    flite: int
    espeak: int
    peak: float
    stages: tuple[Stage, ...]


# Short windows teach the sound of words, long ones to keep one's place among them: at first with
# an encoder that sees a few seconds, which takes half the time, then as it will be used. Small
# batches learn more in the same time. The second cycle is for espeak's many voices, the third and the
# fourth, which takes its time, for sentences that none has said yet.
CYCLES = (
    Cycle(
        7000,
        5000,
        1.0,
        (
            Stage(5, 8, 1600, (1,)),
            Stage(30, 2, 4400, (10, 10, 6, 5)),
            Stage(30, 2, 2800, (6, 3, 1, 1)),
            Stage(30, 2, 1000, (1,)),
        ),
    ),
    Cycle(0, 9000, 0.4, (Stage(30, 2, 5000, (3, 1, 1)),)),
    Cycle(7000, 3000, 0.4, (Stage(30, 2, 3000, (3, 1, 1)),)),
    Cycle(4000, 4000, 0.3, (Stage(30, 2, 8000, (3, 1, 1)),)),
)
MUON_RATE, ADAM_RATE, WARM_UP, WEIGHT_DECAY = 6e-3, 2e-3, 200, 0.01
STAMP_SIGMA = 2.0  # frames by which a timestamp may be off, in its soft target


def synthesise(seed: int, flite: int, espeak: int) -> Iterator[Sentence]:
    """Speak so many training sentences with the voices of each; never one that is held out."""
    rng = np.random.default_rng(seed)
    made = 0
    while made < flite + espeak:
        text = sentence(rng)
        if held_out(text):
            continue
        stretch = float(rng.uniform(0.8, 1.25))
        try:
            if made < flite:
                speech = speaker(f"flite/{FLITE_VOICES[made % len(FLITE_VOICES)]}").say(f"{text}.", stretch)
            else:
                pitch = int(rng.integers(30, 76))
                speech = Espeak(str(rng.choice(ESPEAK_VOICES))).say(f"{text}.", stretch, pitch)
        except ValueError:
            continue  # words that run into one another have no times to learn
        trimmed = speech.trimmed()
        made += 1
        yield Sentence(trimmed.samples, trimmed.words)


def _once(path: Path, make: Callable[[], Iterator[Sentence]]) -> list[Sentence]:
    """Made now, or by an earlier run."""
    if not path.exists():
        _write(path, pickle.dumps(list(make())))
    return pickle.loads(path.read_bytes())  # type: ignore[no-any-return]


def _write(path: Path, data: bytes) -> None:
    """All or nothing: training may be interrupted while it writes."""
    path.with_suffix(".tmp").write_bytes(data)
    path.with_suffix(".tmp").replace(path)


class Batches(Dataset[Batch]):
    """Batch number n of a training, made from the seed and n alone: an interrupted one goes on as it was."""

    def __init__(self, bank: list[Sentence], tokens: Tokens, stages: tuple[Stage, ...], seed: int) -> None:
        self._bank, self._tokens, self._seed = bank, tokens, seed
        self._stages = [stage for stage in stages for _ in range(stage.steps)]

    def __len__(self) -> int:
        return len(self._stages)

    def stage(self, step: int) -> Stage:
        """The stage that a step belongs to."""
        return self._stages[step]

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng((self._seed, step))
        duration_s, count, _, _ = self._stages[step]
        # Short windows stand anywhere in the 30 s that the encoder has positions for.
        free = 1500 - round(duration_s * FRAMES_PER_S)
        offsets = [int(rng.integers(free)) if free and rng.random() < 0.5 else 0 for _ in range(count)]
        examples = [
            example(rng, self._bank, self._tokens, duration_s, offset / FRAMES_PER_S) for offset in offsets
        ]
        return collate(examples, offsets, self._tokens)


class Trainee(nn.Module):
    """The network, and two heads on its encoder that only training needs."""

    filters: Tensor
    hann: Tensor

    def __init__(self, size: int, tokens: Tokens) -> None:
        super().__init__()
        from transformers import WhisperFeatureExtractor

        self.network = new_network(size, tokens)
        self.words = nn.Linear(128, len(WORDS) + 1)
        self.place = nn.Linear(128, 128)
        self.tokens = tokens
        filters = torch.tensor(WhisperFeatureExtractor(feature_size=80).mel_filters.T, dtype=torch.float32)
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("hann", torch.hann_window(400), persistent=False)

    def features(self, sound: Tensor) -> Tensor:
        """``(b, n)`` sound to ``(b, 80, n / 160)`` log-mel, as Whisper's feature extractor makes it."""
        spectrum = torch.view_as_real(torch.stft(sound, 400, 160, window=self.hann, return_complex=True))
        # Squares: the absolute value of complex numbers takes longer than everything else here.
        power = spectrum[:, :, :-1].square().sum(-1)
        mel = (self.filters @ power).clamp(min=1e-10).log10()
        return (torch.maximum(mel, mel.amax((1, 2), keepdim=True) - 8) + 4) / 4

    def forward(self, batch: Batch, pieces: int) -> dict[str, Tensor]:
        """The losses by name; their sum is what training lowers."""
        mel = self.features(batch.sound)
        if torch.rand(()) < 0.5:
            band = int(torch.randint(70, ()))
            mel[:, band : band + int(torch.randint(1, 8, ()))] = mel.mean()
        if torch.rand(()) < 0.1:  # a telephone, or an old recording: nothing above 4 kHz
            mel[:, 62:] = mel.amin((1, 2), keepdim=True)
        encoder, decoder = self.network.model.encoder, self.network.model.decoder
        encoded = encode(encoder, mel, batch.offsets, pieces)
        decoded, gazes = decode(decoder, batch.inputs, encoded)
        learned = batch.labels != IGNORED
        logits, labels = self.network.proj_out(decoded[learned]), batch.labels[learned]
        guided = batch.gaze.sum(-1) > 0
        gaze = sum(-(batch.gaze * g).sum(-1)[guided].mean() for g in gazes) / len(gazes)
        place = encoder.embed_positions.weight[batch.offsets[:, None] + torch.arange(encoded.shape[1])]
        return {
            "text": self._text_loss(logits, labels),
            "place": F.mse_loss(self.place(encoded), place),
            "words": 0.5 * F.cross_entropy(self.words(encoded).flatten(0, 1), batch.frames.flatten()),
            "gaze": 0.5 * gaze if guided.any() else torch.zeros(()),
        }

    def _text_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy; a timestamp's neighbours are nearly right."""
        scores = logits.log_softmax(-1)
        loss = -scores.gather(1, labels[:, None])[:, 0]
        first = self.tokens.first_timestamp
        stamps = labels >= first
        distance = torch.arange(TIMESTAMPS) - (labels[stamps] - first)[:, None]
        soft = torch.softmax(-0.5 * (distance / STAMP_SIGMA) ** 2, -1)
        loss[stamps] = -(soft * scores[stamps][:, first:]).sum(-1)
        return loss.mean()


def optimizers(trainee: Trainee) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers; AdamW for embeddings, convolutions, norms and biases."""
    weights = {name: p for name, p in trainee.named_parameters() if p.requires_grad}
    inner = [name for name, p in weights.items() if ".layers." in name and p.ndim == 2]
    outer = [p for name, p in weights.items() if name not in set(inner)]
    return [
        Muon([weights[name] for name in inner], MUON_RATE, weight_decay=WEIGHT_DECAY),
        torch.optim.AdamW(
            [
                {"params": [p for p in outer if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
                {"params": [p for p in outer if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=ADAM_RATE,
            betas=(0.9, 0.98),
        ),
    ]


def learning_rate(step: int, steps: int, peak: float) -> float:
    """The share of the highest rate: up in a straight line, down along a cosine to a fiftieth."""
    return peak * min(1.0, (step + 1) / WARM_UP) * (0.51 + 0.49 * math.cos(math.pi * step / steps))


def train(
    bank: list[Sentence], cycle: Cycle, seed: int, state_path: Path, tokenizer: Any, start: Path | None
) -> Any:
    """Train a cycle to its end, or from where an earlier run stopped; the trained network.

    ``start`` is the checkpoint to begin with; None begins with nothing.
    """
    tokens = Tokens.of(tokenizer)
    torch.manual_seed(seed)
    trainee = Trainee(len(tokenizer), tokens)
    if start:
        trainee.network = read_network(start)
    batches = Batches(bank, tokens, cycle.stages, seed)
    parts: dict[str, Any] = {"trainee": trainee}
    for number, optimizer in enumerate(optimizers(trainee)):
        schedule = LambdaLR(optimizer, partial(learning_rate, steps=len(batches), peak=cycle.peak))
        parts |= {f"optimizer {number}": optimizer, f"schedule {number}": schedule}
    done, seconds = 0, 0.0
    if state_path.exists():
        state = torch.load(state_path)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        done, seconds = state["done"], state["seconds"]
    losses: list[list[float]] = []
    began = time.monotonic() - seconds
    for step, batch in enumerate(_loaded(batches, done), start=done + 1):
        torch.manual_seed(seed * 1_000_000 + step)
        choices = batches.stage(step - 1).pieces
        parted = trainee(batch, choices[int(torch.randint(len(choices), ()))])
        trainee.zero_grad()
        sum(parted.values()).backward()
        nn.utils.clip_grad_norm_(trainee.parameters(), 1.0)
        for name, part in parts.items():
            if name != "trainee":
                part.step()
        losses.append([float(loss.detach()) for loss in parted.values()])
        if step % 100 == 0 or step == len(batches):
            seconds = time.monotonic() - began
            shown = "  ".join(f"{n} {v:.3f}" for n, v in zip(parted, np.mean(losses, axis=0), strict=True))
            typer.echo(f"step {step} of {len(batches)}, {seconds / 60:.1f} min:  {shown}")
            losses.clear()
        if step % 500 == 0 or step == len(batches):
            state = {name: part.state_dict() for name, part in parts.items()}
            buffer = io.BytesIO()
            torch.save(state | {"done": step, "seconds": seconds}, buffer)
            _write(state_path, buffer.getvalue())
    return trainee.network.eval()


def _loaded(batches: Batches, done: int) -> Iterator[Batch]:
    """The batches still to come, made in a process of their own while the last one is learned from."""
    rest = range(done, len(batches))
    yield from DataLoader(batches, batch_size=None, sampler=rest, num_workers=1, prefetch_factor=4)


def main(
    seed: Annotated[int, typer.Option(help="Another seed, another model")] = 1,
    build_dir: Annotated[Path, typer.Option(help="Where everything is written")] = BUILD,
    steps: Annotated[float, typer.Option(help="Share of the steps, to try things out")] = 1.0,
) -> None:
    """Train micro_whisper from nothing."""
    build_dir.mkdir(parents=True, exist_ok=True)
    tokenizer = build()
    bank: list[Sentence] = []
    former: Path | None = None
    # What an earlier run left is taken up by one with the very same settings alone.
    settings: list[object] = []
    for number, cycle in enumerate(CYCLES):
        stages = tuple(stage._replace(steps=math.ceil(stage.steps * steps)) for stage in cycle.stages)
        cycle_seed = seed + 1000 * number
        spoken = (cycle_seed, cycle.flite, cycle.espeak, FLITE_VOICES, ESPEAK_VOICES, WORDS)
        speech = build_dir / f"speech-{_digest(spoken)}.pickle"
        bank += _once(speech, partial(synthesise, cycle_seed, cycle.flite, cycle.espeak))
        hours = sum(len(sentence.samples) for sentence in bank) / SAMPLE_RATE / 3600
        typer.echo(f"cycle {number + 1}: {len(bank)} sentences, {hours:.1f} h of speech")
        settings += [spoken, stages, cycle.peak]
        state, ended = (build_dir / f"{what}-{_digest(settings)}" for what in ("state", "cycle"))
        if not ended.exists():
            network = train(bank, cycle._replace(stages=stages), cycle_seed, state, tokenizer, former)
            export(network, tokenizer, ended.with_suffix(".tmp"))
            ended.with_suffix(".tmp").rename(ended)
            state.unlink()
        former = ended
    checkpoint = build_dir / "checkpoint"
    shutil.copytree(ended, checkpoint, dirs_exist_ok=True)
    typer.echo(f"written to {checkpoint}; judge it with python -m micro_whisper.evaluate {checkpoint}")


def _digest(settings: object) -> str:
    return hashlib.blake2b(repr(settings).encode(), digest_size=6).hexdigest()


if __name__ == "__main__":
    typer.run(main)
