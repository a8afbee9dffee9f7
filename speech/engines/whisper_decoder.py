"""Whisper's decoder over the weights that transformers has loaded, with a cache whose shapes never change.

transformers' own goes through some hundred Python calls a token, and cannot tell where a few heads look
without keeping what all of them saw. This one does three things: it reads a prompt, writes a token at a
time, and goes over finished texts at once, keeping the attention of the alignment heads alone. On CUDA the
writing of one token is one graph, captured once a batch size.
"""

from collections.abc import Sequence
from typing import Any

Tensor = Any
"""A torch tensor; torch itself is imported when a model is loaded."""


class Decoder:
    """The decoder of one network; a :class:`Memory` is what it knows of one batch."""

    def __init__(self, network: Any) -> None:
        import torch
        from torch.nn import functional

        self._torch, self._f = torch, functional
        decoder = network.get_decoder()
        self._decoder, self._layers = decoder, decoder.layers
        self._heads = network.config.decoder_attention_heads
        self.longest = network.config.max_target_positions
        self._graph_kept: _Graph | None = None

    def let_go(self) -> None:
        """Give back the memory that is kept for the next batch."""
        self._graph_kept = None

    def remember(self, encoded: Tensor) -> "Memory":
        """What the decoder keeps of a batch's sound ``(b, f, d)``: keys and values, a layer each."""
        attentions = [layer.encoder_attn for layer in self._layers]
        # Contiguous: each token goes through all of it, and a stride of a head costs threefold on a CPU.
        return Memory(
            [
                (self._split(a.k_proj(encoded)).contiguous(), self._split(a.v_proj(encoded)).contiguous())
                for a in attentions
            ]
        )

    def read(self, memory: "Memory", tokens: Tensor, heads: Sequence[tuple[int, int]] = ()) -> Any:
        """Go over texts ``(b, t)`` at once, from the beginning; what comes out ``(b, t, d)``.

        Its keys and values stay in ``memory`` for :meth:`write`. With ``heads``, as pairs of layer and
        head, also the mean of where they look: ``(b, t, f)``.
        """
        count = tokens.shape[1]
        hidden = self._embed(tokens, self._torch.arange(count, device=tokens.device))
        memory.text = []
        looked: Tensor = 0
        for number, (layer, (key, value)) in enumerate(zip(self._layers, memory.sound, strict=True)):
            query, own_key, own_value = self._own(layer, hidden)
            memory.text.append((own_key, own_value))
            attended = self._f.scaled_dot_product_attention(query, own_key, own_value, is_causal=True)
            hidden = hidden + layer.self_attn.out_proj(self._join(attended))
            query = self._asked(layer, hidden)
            if wanted := [head for at, head in heads if at == number]:
                scores = query[:, wanted].float() @ key[:, wanted].float().transpose(-1, -2)
                looked = looked + (scores * query.shape[-1] ** -0.5).softmax(-1).sum(1)
            hidden = self._heard(layer, hidden, query, key, value)
        hidden = self._decoder.layer_norm(hidden)
        return (hidden, looked / len(heads)) if heads else hidden

    def write(self, memory: "Memory", tokens: Tensor, position: int) -> Tensor:
        """One more token ``(b,)`` at a position; what comes out ``(b, d)``, until the next is asked for."""
        if tokens.device.type == "cuda":
            with self._torch.cuda.device(tokens.device):  # a thread captures and replays on its current one
                return self._graph(memory, len(tokens)).run(tokens, position)
        memory.make_room(self._torch, self.longest)
        where = self._torch.tensor([position], device=tokens.device)
        hidden = self._embed(tokens[:, None], where)
        return self._step(memory, hidden, where, until=position + 1)

    def _step(self, memory: "Memory", hidden: Tensor, where: Tensor, until: int | None) -> Tensor:
        """``until`` None: attend to the whole cache and hide what is behind ``where``, for a graph."""
        hide = (
            None
            if until
            else self._torch.arange(self.longest, device=where.device)[None, None, None] <= where
        )
        for layer, (key, value), (own_key, own_value) in zip(
            self._layers, memory.sound, memory.text, strict=True
        ):
            query, new_key, new_value = self._own(layer, hidden)
            own_key.index_copy_(2, where, new_key)
            own_value.index_copy_(2, where, new_value)
            attended = self._f.scaled_dot_product_attention(
                query, own_key[:, :, :until], own_value[:, :, :until], attn_mask=hide
            )
            hidden = hidden + layer.self_attn.out_proj(self._join(attended))
            hidden = self._heard(layer, hidden, self._asked(layer, hidden), key, value)
        return self._decoder.layer_norm(hidden)[:, 0]

    def _embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        return self._decoder.embed_tokens(tokens) + self._decoder.embed_positions.weight[positions]

    def _own(self, layer: Any, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        normed, attention = layer.self_attn_layer_norm(hidden), layer.self_attn
        query, key, value = attention.q_proj(normed), attention.k_proj(normed), attention.v_proj(normed)
        return self._split(query), self._split(key), self._split(value)

    def _asked(self, layer: Any, hidden: Tensor) -> Tensor:
        return self._split(layer.encoder_attn.q_proj(layer.encoder_attn_layer_norm(hidden)))

    def _heard(self, layer: Any, hidden: Tensor, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if query.shape[2] == 1 and query.device.type == "cpu":  # for one token it is slower than its parts
            scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
            attended = scores.softmax(-1) @ value
        else:
            attended = self._f.scaled_dot_product_attention(query, key, value)
        hidden = hidden + layer.encoder_attn.out_proj(self._join(attended))
        inner = self._f.gelu(layer.fc1(layer.final_layer_norm(hidden)))
        return hidden + layer.fc2(inner)

    def _split(self, projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (self._heads, -1)).transpose(1, 2)

    def _join(self, attended: Tensor) -> Tensor:
        return attended.transpose(1, 2).flatten(2)

    def _graph(self, memory: "Memory", rows: int) -> "_Graph":
        if self._graph_kept is None or self._graph_kept.rows < rows:
            self._graph_kept = None  # it holds memory for a whole batch
            self._graph_kept = _Graph(self, memory, rows)
        graph = self._graph_kept
        if memory.graph is not graph:
            graph.take_in(memory)
        return graph


class Memory:
    """Keys and values of a batch, ``(b, h, n, d)``, a layer each: of its sound, and of the text so far."""

    def __init__(self, sound: list[tuple[Tensor, Tensor]]) -> None:
        self.sound = sound
        self.text: list[tuple[Tensor, Tensor]] = []
        self.graph: _Graph | None = None

    def make_room(self, torch: Any, longest: int) -> None:
        """Widen the text's part to the longest that there may be, once."""
        if self.text[0][0].shape[2] < longest:
            self.text = [(_widened(torch, k, longest), _widened(torch, v, longest)) for k, v in self.text]

    def keep(self, rows: Tensor) -> None:
        """Forget all rows of the batch but these."""
        self.sound = [(key[rows], value[rows]) for key, value in self.sound]
        self.text = [(key[rows], value[rows]) for key, value in self.text]


def _widened(torch: Any, part: Tensor, longest: int) -> Tensor:
    rows, heads, count, width = part.shape
    wide = torch.zeros((rows, heads, longest, width), dtype=part.dtype, device=part.device)
    wide[:, :, :count] = part
    return wide


class _Graph:
    """The writing of one token for up to ``rows``, captured; its memory is filled anew for each batch."""

    def __init__(self, decoder: Decoder, memory: Memory, rows: int) -> None:
        torch = decoder._torch  # noqa: SLF001  # its other half
        self.rows = rows
        memory.make_room(torch, decoder.longest)
        self._own = Memory([(k.clone(), v.clone()) for k, v in memory.sound])
        self._own.text = [(k.clone(), v.clone()) for k, v in memory.text]
        device = memory.sound[0][0].device
        self._tokens = torch.zeros(rows, dtype=torch.long, device=device)
        self._where = torch.zeros(1, dtype=torch.long, device=device)

        def step() -> Tensor:
            hidden = decoder._embed(self._tokens[:, None], self._where)  # noqa: SLF001
            return decoder._step(self._own, hidden, self._where, until=None)  # noqa: SLF001

        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # torch asks for a few runs before it captures
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(aside)
        self._captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._captured):
            self._out = step()

    def take_in(self, memory: Memory) -> None:
        # What a larger batch has left in the rows behind is written on, and nobody asks for it.
        for own, other in zip(self._own.sound, memory.sound, strict=True):
            for mine, theirs in zip(own, other, strict=True):
                mine[: len(theirs)].copy_(theirs)
        for own, other in zip(self._own.text, memory.text, strict=True):
            for mine, theirs in zip(own, other, strict=True):
                rows, _, count, _ = theirs.shape
                mine[:rows, :, :count].copy_(theirs)
                mine[:rows, :, count:].zero_()  # hidden, but what is no number spoils a sum even so
        memory.graph = self

    def run(self, tokens: Tensor, position: int) -> Tensor:
        self._tokens[: len(tokens)].copy_(tokens)
        self._where.fill_(position)
        self._captured.replay()
        return self._out[: len(tokens)]
