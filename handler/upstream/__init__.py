"""The upstream, which is OpenAI or a compatible server: its models, client, errors and rate limits.

No other package imports OpenAI's SDK.
"""
