"""Transcripts: text, segments and words, alignment of text with the audio, and subtitles."""
