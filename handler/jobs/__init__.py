"""The storage of jobs: items in DynamoDB, objects in S3, and messages in SQS.

The module `store` implements the operations for callers. The modules `progress` and `parts`
implement the updates for the steps. Do not rename stored fields: other releases read them too.
Unknown fields are ignored when an item is read.
"""
