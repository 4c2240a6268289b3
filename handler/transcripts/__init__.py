"""Transcripts: text, segments and words, their alignment with the sound, and subtitles."""
