"""Prevents double billing with a ledger of paid results, and enforces daily caps."""
