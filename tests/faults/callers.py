"""Every way in which pictures are sent to a service: each adapter, and clients that it is given."""

from __future__ import annotations

import boto3
import grpc
import requests
from azure.ai.vision.imageanalysis import ImageAnalysisClient
from azure.cognitiveservices.vision.computervision import ComputerVisionClient
from azure.core.credentials import AzureKeyCredential
from google.auth.credentials import AnonymousCredentials
from google.cloud import vision
from google.cloud.vision_v1.services.image_annotator.transports import ImageAnnotatorGrpcTransport
from msrest.authentication import CognitiveServicesCredentials

from smoothapi_adapters.aws import AwsAdapter
from smoothapi_adapters.azure import Azure4Adapter, AzureAdapter
from smoothapi_adapters.clarifai import ClarifaiAdapter
from smoothapi_adapters.google import GoogleAdapter
from smoothapi_adapters.http import HttpAdapter

SECRET = "s3cr3ts3cr3ts3cr3ts3cr3ts3cr3t12"
OPTIONS = {
    "labels": "labels[*].{name: name, score: score}",
    "body": "base64-json",
    "template": {"image": "{picture}"},
}


def rekognition(url):
    return boto3.client(
        "rekognition",
        endpoint_url=url,
        region_name="eu-west-1",
        aws_access_key_id="AKIDEXAMPLE",
        aws_secret_access_key=SECRET,
        aws_session_token=SECRET,
    )


def computer_vision(url, setup=None):
    client = ComputerVisionClient(url, CognitiveServicesCredentials(SECRET))
    if setup is not None:
        client.config.session_configuration_callback = setup
    return client


def image_annotator(url):
    return vision.ImageAnnotatorClient(
        transport="rest",
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": url},
    )


def image_annotator_grpc(url):
    channel = grpc.insecure_channel(url.removeprefix("http://"))
    return vision.ImageAnnotatorClient(transport=ImageAnnotatorGrpcTransport(channel=channel))


def image_analysis(url):
    return ImageAnalysisClient(url, AzureKeyCredential(SECRET))


def own_session():
    session = requests.Session()
    session.headers["X-Of-Its-Owner"] = "yes"
    return session


def answer(score=b"0.97"):
    """Return one body that is an answer in each of the protocols: a bus, and how likely it is."""
    return (
        b'{"Labels": [{"Name": "bus", "Confidence": %(s)s}],'
        b' "labels": [{"name": "bus", "score": %(s)s}],'
        b' "tags": [{"name": "bus", "confidence": %(s)s}], "requestId": "1", "metadata": {},'
        b' "tagsResult": {"values": [{"name": "bus", "confidence": %(s)s}]},'
        b' "responses": [{"labelAnnotations": [{"description": "bus", "score": %(s)s}]}],'
        b' "status": {"code": 10000}, "outputs": [{"status": {"code": 10000},'
        b' "data": {"concepts": [{"name": "bus", "value": %(s)s}]}}]}'
    ) % {b"s": score}


CALLERS = {
    "aws": lambda url, t: AwsAdapter(endpoint=url, region="eu-west-1", timeout=t),
    "aws, a client": lambda url, t: AwsAdapter(client=rekognition(url), timeout=t),
    "azure": lambda url, t: AzureAdapter(endpoint=url, key=SECRET, timeout=t),
    "azure, a client": lambda url, t: AzureAdapter(client=computer_vision(url), timeout=t),
    "azure, a client with sessions of its own": lambda url, t: AzureAdapter(
        client=computer_vision(url, lambda session, *_, **more: more), timeout=t
    ),
    "azure4": lambda url, t: Azure4Adapter(endpoint=url, key=SECRET, timeout=t),
    "azure4, a client": lambda url, t: Azure4Adapter(client=image_analysis(url), timeout=t),
    "clarifai": lambda url, t: ClarifaiAdapter(endpoint=url, pat=SECRET, timeout=t),
    "google rest": lambda url, t: GoogleAdapter(
        endpoint=url, transport="rest", api_key=SECRET, timeout=t
    ),
    "google rest, a client": lambda url, t: GoogleAdapter(client=image_annotator(url), timeout=t),
    "google grpc": lambda url, t: GoogleAdapter(endpoint=url, api_key=SECRET, timeout=t),
    "google grpc, a client": lambda url, t: GoogleAdapter(
        client=image_annotator_grpc(url), timeout=t
    ),
    "http": lambda url, t: HttpAdapter(
        url, timeout=t, headers={"Authorization": f"Bearer {SECRET}"}, **OPTIONS
    ),
    "http, a session": lambda url, t: HttpAdapter(
        url, timeout=t, client=own_session(), query={"key": SECRET}, **OPTIONS
    ),
}
"""Name -> what makes an adapter from a URL and a time limit in seconds."""
