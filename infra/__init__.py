"""The deployment: the CDK stack, its options and alarms, and the code bundles.

This package runs on the machine that deploys, not in Lambda.
"""
