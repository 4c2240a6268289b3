"""Nothing is billed twice, and caps hold: the ledger of paid answers, and the budget of a day."""
