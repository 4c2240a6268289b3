"""The steps of a job, each run by a message of a queue: cut a recording, transcribe a part, finish the job.

Each step may run twice, late, or end at any moment; docs/architecture.md has the rules. Dead letters fail their job.
"""
