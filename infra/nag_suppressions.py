"""The findings of cdk-nag that are accepted, each with its reason; `make test-all` fails on any other."""

from aws_cdk import Acknowledgment, Validations
from constructs import Construct

_REASONS = {
    "AwsSolutions-SMG4": "The OpenAI key is its owner's to rotate, and the access token its callers': both can be put"
    " anew at any time, and are read again within minutes.",
    "AwsSolutions-S1": "The objects are one owner's recordings, which only the functions of this stack can reach;"
    " a log of it would be a second bucket to keep.",
    "AwsSolutions-IAM5[Resource::*]": "X-Ray knows no narrower resource to put traces to.",
    "AwsSolutions-IAM5[Resource::<Bucket83908E77.Arn>/uploads/*]": "A recording's name is its job's, which is new"
    " each time; the prefix is what the function is for.",
    "AwsSolutions-IAM5[Resource::<Bucket83908E77.Arn>/requests/*]": "As with uploads.",
    "AwsSolutions-IAM5[Resource::<Bucket83908E77.Arn>/parts/*]": "As with uploads.",
    "AwsSolutions-IAM5[Resource::<Bucket83908E77.Arn>/transcripts/*]": "As with uploads.",
    "AwsSolutions-L1": "Python 3.13 has wheels of everything that is bundled, and is supported until 2029.",
    "AwsSolutions-APIG4": "The function itself asks for the token, in its own words; where JWTs are asked for, the"
    " gateway asks on every route but the open ones.",
    "Serverless::Serverless-APIGWStructuredLogging": "Each line is JSON: the gateway itself writes the quotation marks"
    " of $context.error.messageString, and escapes it.",
    "Serverless::Serverless-SQSRedrivePolicy": "It is the queue of dead letters itself.",
    "Serverless::Serverless-LambdaDLQ": "Nobody calls the functions asynchronously.",
    "Serverless::Serverless-LambdaLatestVersion": "As AwsSolutions-L1.",
    "Serverless::Serverless-LambdaEventSourceMappingDestination": "A queue's mapping takes none: what fails goes to the"
    " queue of dead letters, which has an alarm.",
}


def acknowledge(stack: Construct) -> None:
    """Tells cdk-nag the reasons."""
    for finding, reason in _REASONS.items():
        Validations.of(stack).acknowledge(Acknowledgment(id=finding, reason=reason))
