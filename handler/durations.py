"""Retention periods that several modules and the lifecycle rules of the stack use."""

DAY_SECONDS = 86_400

TRANSCRIPT_DAYS = 30  # the default of the TRANSCRIPT_DAYS setting
UNFINISHED_DAYS = 7  # for unfinished jobs, their recordings and parts
ANSWER_DAYS = 1  # for paid results in the ledger
BUDGET_DAYS = 7  # for items of the daily budget in DynamoDB
