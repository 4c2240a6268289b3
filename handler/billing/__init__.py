"""Prevents double billing with a ledger of paid answers, and enforces daily caps."""
