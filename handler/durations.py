"""Durations that several modules share, such as how long jobs and answers are stored.

The lifecycle rules of the stack use them too.
"""

DAY_SECONDS = 86_400

TRANSCRIPT_DAYS = 30  # unless TRANSCRIPT_DAYS is set
UNFINISHED_DAYS = 7  # recordings, parts and jobs that did not end
ANSWER_DAYS = 1  # paid answers in the ledger
BUDGET_DAYS = 7  # what was spent in a day
