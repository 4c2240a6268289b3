"""Tests with packages that are downloaded from npm and PyPI during the test (`make clients`)."""
