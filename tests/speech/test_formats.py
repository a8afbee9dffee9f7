"""One transcript in each format."""

import json

from speech.formats import Format
from speech.types import Segment, Transcript, Word

LINE = Segment((Word("Hello", 0.5, 0.9, 0.75, "decoder"), Word("<b>&", 1.0, 1.25, 0.5, "decoder")))
LONG = Segment(tuple(Word(f"w{n}", 3600.0 + n, 3600.5 + n, 1.0, "decoder") for n in range(16)))
TRANSCRIPT = Transcript("en", 4000.0, (LINE, LONG))


def test_json_lists_each_word_once_with_numbers() -> None:
    document = json.loads(Format.JSON.write(TRANSCRIPT, "a.mp4"))
    assert [word["word"] for word in document["words"]] == [word.text for word in TRANSCRIPT.words]
    assert document["file"] == "a.mp4"
    assert document["words"][1] == {
        "word": "<b>&",
        "start_s": 1.0,
        "end_s": 1.25,
        "probability": 0.5,
        "segment_index": 0,
        "timing_source": "decoder",
    }


def test_text_has_a_line_per_segment() -> None:
    assert Format.TEXT.write(TRANSCRIPT, "a.mp4").splitlines()[0] == "Hello <b>&"


def test_subrip_numbers_its_captions_and_breaks_long_ones() -> None:
    captions = Format.SRT.write(TRANSCRIPT, "a.mp4").split("\n\n")
    assert captions[0] == "1\n00:00:00,500 --> 00:00:01,250\nHello <b>&"
    assert captions[2].startswith("3\n01:00:14,000 --> 01:00:15,500\nw14 w15")


def test_webvtt_shows_markup_as_text() -> None:
    text = Format.VTT.write(TRANSCRIPT, "a.mp4")
    assert text.startswith("WEBVTT\n\n00:00:00.500 --> 00:00:01.250\nHello &lt;b&gt;&amp;\n")


def test_no_words_are_an_empty_document() -> None:
    empty = Transcript("en", 1.0, ())
    assert [form.write(empty, "a") for form in (Format.TEXT, Format.SRT)] == ["", ""]
    assert Format.VTT.write(empty, "a") == "WEBVTT\n"
