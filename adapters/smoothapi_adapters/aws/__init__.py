"""Amazon Rekognition."""

from smoothapi_adapters.aws.adapter import AwsAdapter

__all__ = ["AwsAdapter"]
