"""Transcription of a request's recording: options, the direct attempt, and the handover to a job.

Before a recording is sent to the upstream, the ledger is checked for a paid result and the seconds
are reserved in the budget.
"""
