"""One transcript in each format, read back by who reads such files."""

import csv
import io
import itertools
import json

import pyarrow.parquet as pq
import pytest

from speech.captions import LINE_CHARACTERS, LONGEST_S, captions
from speech.formats import Format
from speech.types import Segment, Transcript, Word

LINE = Segment((Word("Hello", 0.5, 0.9, 0.75, "decoder"), Word("<b>&", 1.0, 1.25, 0.5, "decoder")))
LATER = Segment((Word("caf\u00e9", 3600.0, 3600.5, 1.0, "decoder", 1),))
TRANSCRIPT = Transcript("en", 4000.0, (LINE, LATER))
EMPTY = Transcript("en", 1.0, ())


def text_of(form: Format, transcript: Transcript = TRANSCRIPT) -> str:
    return form.write(transcript, "my a.mp4").decode()


def test_json_lists_each_word_once_with_numbers() -> None:
    document = json.loads(text_of(Format.JSON))
    assert [word["word"] for word in document["words"]] == [word.text for word in TRANSCRIPT.words]
    assert document["file"] == "my a.mp4"
    assert document["words"][1] == {
        "word": "<b>&",
        "start_s": 1.0,
        "end_s": 1.25,
        "probability": 0.5,
        "segment_index": 0,
        "channel": None,
        "timing_source": "decoder",
    }


def test_text_has_a_line_per_segment() -> None:
    assert text_of(Format.TEXT) == "Hello <b>&\nRight: caf\u00e9\n"


def test_subrip_numbers_its_captions() -> None:
    shown = text_of(Format.SRT).split("\n\n")
    assert shown[0] == "1\n00:00:00,500 --> 00:00:01,300\nHello <b>&"
    assert shown[1].startswith("2\n01:00:00,000 --> 01:00:00,800\nRight: caf\u00e9")


def test_webvtt_shows_markup_as_text() -> None:
    text = text_of(Format.VTT)
    assert text.startswith("WEBVTT\n\n00:00:00.500 --> 00:00:01.300\nHello &lt;b&gt;&amp;\n")


def test_tsv_and_parquet_hold_the_same_rows() -> None:
    lines = list(csv.DictReader(io.StringIO(text_of(Format.TSV)), delimiter="\t"))
    table = pq.read_table(io.BytesIO(Format.PARQUET.write(TRANSCRIPT, "my a.mp4")))
    rows = table.to_pylist()
    assert [line["word"] for line in lines] == [row["word"] for row in rows] == ["Hello", "<b>&", "caf\u00e9"]
    assert [float(line["start_s"]) for line in lines] == [row["start_s"] for row in rows]
    assert [row["channel"] for row in rows] == [None, None, 1]
    assert table.schema.metadata[b"file"] == b"my a.mp4"


def test_tsv_keeps_quotes_and_tabs_and_its_header() -> None:
    odd = Transcript("en", 9.0, (Segment((Word('"Hello', 0, 1, 1.0, "d"), Word("a\tb", 1, 2, 1.0, "d"))),))
    rows = list(csv.DictReader(io.StringIO(text_of(Format.TSV, odd)), delimiter="\t"))
    assert [row["word"] for row in rows] == ['"Hello', "a\tb"]
    assert text_of(Format.TSV, EMPTY).split() == text_of(Format.TSV).splitlines()[0].split("\t")


def test_captions_of_two_who_talk_at_once_stand_in_order_and_whole() -> None:
    left = [Word(f"left{n}", n, n + 0.9, 1.0, "d", 0) for n in range(14)]
    right = [Word("yes", 5.2, 5.6, 1.0, "d", 1), Word("I", 5.7, 5.8, 1.0, "d", 1)]
    made = captions(Transcript("en", 20.0, (Segment(tuple(left)), Segment(tuple(right)))))
    starts = [caption.start_s for caption in made]
    assert starts == sorted(starts)
    assert ("yes I",) in [caption.lines for caption in made]
    talk = Transcript("en", 20.0, (Segment(tuple(left)), Segment(tuple(right))))
    assert "<v Right>yes I" in text_of(Format.VTT, talk)
    assert "Right: yes I" in text_of(Format.SRT, talk)
    assert "Right: yes I" in text_of(Format.TEXT, talk)
    shown = " ".join(line for caption in made for line in caption.lines if "yes" not in line)
    assert shown.split() == [word.text for word in left]


def test_a_line_ends_with_its_sentence() -> None:
    words = ["Is", "it", '"open?"', "You", "can", "come", "at", "nine,", "or", "at", "ten", "maybe."]
    timed = tuple(Word(word, n * 0.35, n * 0.35 + 0.3, 1.0, "d") for n, word in enumerate(words))
    (first, *_) = captions(Transcript("en", 9.0, (Segment(timed),)))
    assert first.lines[0] == 'Is it "open?"'


def test_ctm_is_what_sclite_reads() -> None:
    assert text_of(Format.CTM).splitlines() == [
        "my_a.mp4 1 0.500 0.400 Hello 0.7500",
        "my_a.mp4 1 1.000 0.250 <b>& 0.5000",
        "my_a.mp4 2 3600.000 0.500 caf\u00e9 1.0000",
    ]


@pytest.mark.parametrize("form", list(Format))
def test_no_words_are_an_empty_document(form: Format) -> None:
    written = form.write(EMPTY, "a")
    if form is Format.PARQUET:
        assert pq.read_table(io.BytesIO(written)).num_rows == 0
    else:
        assert "Hello" not in written.decode()
        assert written.endswith(b"\n")


def spoken(text: str, word_s: float = 0.3, pauses: dict[str, float] | None = None) -> Transcript:
    """Words one after another, with a pause behind some."""
    clock, words = 0.0, []
    for word in text.split():
        words.append(Word(word, round(clock, 3), round(clock + word_s, 3), 1.0, "decoder"))
        clock += word_s + (pauses or {}).get(word, 0.02)
    return Transcript("en", clock + 5.0, (Segment(tuple(words)),))


def lines_of(transcript: Transcript) -> list[str]:
    return [" / ".join(caption.lines) for caption in captions(transcript)]


def test_captions_end_with_sentences_and_clauses() -> None:
    talk = (
        "The library is open every day from nine in the morning. You can borrow five books at a time, and "
        "keep them for a month. Please bring them back."
    )
    assert lines_of(spoken(talk)) == [
        "The library is open every / day from nine in the morning.",
        "You can borrow five books at a time, / and keep them for a month.",
        "Please bring them back.",
    ]


def test_without_punctuation_captions_end_at_pauses() -> None:
    talk = "the library is open every day from nine you can borrow five books keep them for a month or longer"
    shown = lines_of(spoken(talk, pauses={"nine": 0.5, "books": 0.5}))
    assert [line.replace(" / ", " ").split()[-1] for line in shown] == ["nine", "longer"]


@pytest.mark.parametrize("length", [1, 2, 40, 400])
@pytest.mark.parametrize("word", ["a", "word", "unpronounceable", "x" * 60])
@pytest.mark.parametrize("word_s", [0.05, 0.4, 9.0])
def test_captions_keep_to_what_can_be_shown_and_lose_no_word(word: str, length: int, word_s: float) -> None:
    transcript = spoken(" ".join([word] * length), word_s)
    made = captions(transcript)
    assert " ".join(line for caption in made for line in caption.lines).split() == [word] * length
    for caption, after in itertools.pairwise(made):
        assert caption.start_s < caption.end_s <= after.start_s
    for caption in made:
        assert len(caption.lines) <= 2
        if len(word) <= LINE_CHARACTERS:
            assert max(map(len, caption.lines)) <= LINE_CHARACTERS
        if " " in " ".join(caption.lines):
            assert caption.end_s - caption.start_s <= LONGEST_S + 0.1


def test_a_caption_stays_long_enough_to_be_read() -> None:
    transcript = spoken("a rather long sentence that is spoken very fast indeed.", word_s=0.05)
    (caption,) = captions(transcript)
    assert caption.end_s - caption.start_s > 3.0
