"""How micro_whisper is made: the words it knows, their synthesis, its training and its evaluation."""
