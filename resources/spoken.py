"""Published transcripts as the warehouse keeps them: words and segments by the number of their transcript."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from resources.published import PublishedTranscripts


def words_of(published: PublishedTranscripts, first: int) -> pa.Table:
    """Its words; transcripts are numbered from ``first`` in the order of the outcomes."""
    ids = pa.array([outcome.video_id for outcome in published.head.outcomes], pa.string())
    places = pc.index_in(published.words["video_id"], value_set=ids)
    numbers = pc.add(places, pa.scalar(first, pa.int32()))
    return published.words.drop_columns(["video_id"]).append_column("transcript_id", numbers)


def segments_of(words: pa.Table) -> pa.Table:
    """A row for each run of words of one segment; ``words`` as :func:`words_of` gives them.

    In one pass over whole columns: as a GROUP BY it takes as long as inserting all words.
    """
    numbers = {name: words[name].to_numpy() for name in ("transcript_id", "segment_index")}
    changes = [column[1:] != column[:-1] for column in numbers.values()]
    first = np.flatnonzero(np.append(len(words) > 0, changes[0] | changes[1]))
    lengths = np.diff(np.append(first, len(words)))
    ends = pa.array(np.append(first, len(words)), pa.int32())
    texts = pa.ListArray.from_arrays(ends, words["word"].combine_chunks())

    def each(reduce: np.ufunc, name: str) -> np.ndarray:
        return reduce.reduceat(words[name].to_numpy(), first) if len(first) else np.empty(0)

    return pa.table(
        {
            **{name: column[first] for name, column in numbers.items()},
            "start_s": each(np.minimum, "start_s"),
            "end_s": each(np.maximum, "end_s"),
            "text": pc.binary_join(texts, " "),
            "words": lengths,
            "probability": np.round(each(np.add, "probability") / lengths, 4),
            "language": words["language"].take(pa.array(first)),
        }
    )
