"""Accepted cdk-nag findings, and the reason for accepting each of them.

`make test-all` fails on any other finding.
"""

from aws_cdk import Acknowledgment, Validations
from constructs import Construct

_REASONS = {
    "AwsSolutions-SMG4": "The owner rotates the OpenAI key and the access token by"
    " storing new values, which the functions read within minutes.",
    "AwsSolutions-S1": "Only the functions of this stack can read the bucket. An access log"
    " would need a second bucket.",
    "AwsSolutions-IAM5[Resource::*]": "X-Ray has no resource-level permissions for putting traces.",
    "AwsSolutions-IAM5[Resource::<Bucket83908E77.Arn>/uploads/*]": "Each object name contains"
    " a new job id, so the policy can name only the prefix.",
    "AwsSolutions-IAM5[Resource::<Bucket83908E77.Arn>/requests/*]": "See uploads/*.",
    "AwsSolutions-IAM5[Resource::<Bucket83908E77.Arn>/parts/*]": "See uploads/*.",
    "AwsSolutions-IAM5[Resource::<Bucket83908E77.Arn>/transcripts/*]": "See uploads/*.",
    "AwsSolutions-L1": "All bundled packages have wheels for Python 3.13, which is supported"
    " until 2029.",
    "AwsSolutions-APIG4": "With auth=token, the function checks the token. With auth=jwt, the"
    " gateway checks the JWT on every route except the public ones.",
    "Serverless::Serverless-APIGWStructuredLogging": "Each line is valid JSON. The"
    " gateway quotes and escapes $context.error.messageString.",
    "Serverless::Serverless-SQSRedrivePolicy": "This queue is the dead-letter queue.",
    "Serverless::Serverless-LambdaDLQ": "The functions are not invoked asynchronously.",
    "Serverless::Serverless-LambdaLatestVersion": "See AwsSolutions-L1.",
    "Serverless::Serverless-LambdaEventSourceMappingDestination": "An event source mapping of an"
    " SQS queue has no failure destination. The dead-letter queue has an alarm.",
}


def acknowledge_findings(stack: Construct) -> None:
    """Acknowledge the accepted cdk-nag findings in `stack`, each with its reason."""
    for finding, reason in _REASONS.items():
        Validations.of(stack).acknowledge(Acknowledgment(id=finding, reason=reason))
