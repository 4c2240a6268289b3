"""One request's recording: its options, its transcription within the deadline, or its hand-over to a job.

A result is paid once: the ledger and the budget are asked before a recording is sent.
"""
