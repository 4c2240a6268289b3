"""Processing of recordings: container detection, speech detection, and cutting into parts.

Only `decoder` imports PyAV. It runs in a child process, because uploaded files are not trusted.
"""
