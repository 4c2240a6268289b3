"""The jobs as they are stored: items in DynamoDB, objects in S3, and messages in SQS.

`store` has what callers do with a job, `progress` and `parts` the writes of the steps. Names of stored fields are
contracts: readers ignore those that they do not have.
"""
