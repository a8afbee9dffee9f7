"""The search page: find a word, click, hear it. Reads the published copy alone, and writes only verdicts."""
