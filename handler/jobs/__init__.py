"""The storage of jobs: items in DynamoDB, objects in S3, and messages in SQS.

`store` has the operations of callers, `progress` and `parts` the updates by the steps. Do not
rename stored fields: other releases read them too. Unknown fields are ignored when an item is read.
"""
