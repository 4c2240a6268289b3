"""The steps of a job, each started by a queue message: cut a recording, transcribe a part, finish.

A step may run twice or late, and may crash at any moment. docs/architecture.md has the rules that
make this safe. Dead letters fail their jobs.
"""
