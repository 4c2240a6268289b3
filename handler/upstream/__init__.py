"""The server that transcribes, OpenAI or a compatible one: its models, its client, its errors, and its limits.

Only this package imports OpenAI's SDK.
"""
