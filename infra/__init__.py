"""Where the handler runs: the CDK stack, its choices, alarms and findings, and the bundles.

Nothing here runs in Lambda.
"""
