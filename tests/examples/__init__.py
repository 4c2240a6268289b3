"""Tests that run the examples of the documentation, as their readers do."""
