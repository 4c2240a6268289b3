"""Transcripts: text, segments and words, alignment of text with the sound, and subtitles."""
