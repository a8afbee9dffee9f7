"""How sound becomes words: media decoding, voice activity, windows, engines, scoring, formats.

A plain library. It never imports Dagster, and anyone can use it alone:

    from speech.models import read_models
    from speech.pipeline import Transcriber, transcribe_file

    transcriber = Transcriber(read_models("models.toml")["pocketsphinx"])
    transcript = transcribe_file(transcriber, "talk.mp4")
"""
