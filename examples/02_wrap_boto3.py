"""Certify the labels of existing boto3 code by one more line; no account: a local Rekognition."""

from __future__ import annotations

from pathlib import Path

import boto3

from smoothapi import certificate_of, wrap
from smoothapi.services import Table, serve

PHOTO = Path(__file__).parent / "photos" / "balloon.jpg"
ANSWERS = Table({str(PHOTO): [("Balloon", 0.98), ("Aircraft", 0.92)]})

with serve("aws", ANSWERS) as service:
    rekognition = boto3.client(
        "rekognition",
        endpoint_url=service.url,  # leave out these four lines to ask Amazon itself
        region_name="eu-west-1",
        aws_access_key_id="nobody",
        aws_secret_access_key="nothing",  # noqa: S106
    )
    rekognition = wrap(rekognition, budget="500", size=96, denoiser="none")  # the new line

    response = rekognition.detect_labels(Image={"Bytes": PHOTO.read_bytes()}, MinConfidence=80)

    for label in response["Labels"]:  # any threshold from 80 up is now a certified decision
        print(f"{label['Name']}: at least {label['Confidence']:.1f}%, certified")
    print(certificate_of(response))
    print(f"{len(service.received)} requests arrived at the service.")
