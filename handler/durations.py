"""Retention periods that several modules and the lifecycle rules of the stack share."""

DAY_SECONDS = 86_400

TRANSCRIPT_DAYS = 30  # the default of the setting TRANSCRIPT_DAYS
UNFINISHED_DAYS = 7  # for unfinished jobs, their recordings and parts
ANSWER_DAYS = 1  # for paid answers in the ledger
BUDGET_DAYS = 7  # for the items of the daily budget
