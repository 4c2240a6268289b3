"""AWS helpers for the other packages: clients, outages, secrets, DynamoDB values and metrics."""
