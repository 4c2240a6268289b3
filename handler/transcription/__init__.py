"""Reads the options of a request, and transcribes its recording directly or in a job.

Before a recording is sent to the upstream, the ledger is checked for a paid result, and the
duration is reserved in the budget.
"""
