"""Texts and JSON of any kind, and how many of them are tried."""

import json
import os
from functools import partial

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("ASR_FUZZ_EXAMPLES", "200"))

bounded = partial(
    settings,
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

any_text = st.text(st.characters(), max_size=30)  # halves of characters, too

numbers = st.one_of(
    st.integers(),
    st.sampled_from([10**30, 10**400, -(10**400), 2**31, 2**63, 2**64]),
    st.floats(),
)

any_json = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, any_text),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(any_text, inner, max_size=4)),
    max_leaves=12,
)

nested = st.integers(1, 1200).map(lambda depth: "[" * depth + "]" * depth)

as_written = st.one_of(any_json.map(json.dumps), nested, st.just("1e999"), st.just("9" * 5000), any_text)


def spliced(text: str, data: st.DataObject) -> str:
    """A text in which something is cut out, or put in the place of something else."""
    first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(text))] * 2)))
    return (
        text[:first]
        + data.draw(st.one_of(as_written, st.just(""), st.just(text[first:last] * 2)))
        + text[last:]
    )
