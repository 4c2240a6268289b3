"""Recordings as bytes and sound: the container, whether anything was recorded, where speech is, and clean parts.

Only `decoder` imports PyAV. It runs in a process of its own, because it opens files that strangers made.
"""
