"""The steps of a job: cut the recording, transcribe each part, and finish the job.

A step may run twice or late, and may crash at any moment. docs/about/architecture.md describes the
rules that make this safe. If a message of a job becomes a dead letter, the job fails.
"""
