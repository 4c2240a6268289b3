"""The deployment: the CDK stack, its options and alarms, and the code bundles.

This package runs on the machine from which Steno is deployed, not in Lambda.
"""
