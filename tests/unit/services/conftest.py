"""Callers of each provider, through the SDK that its users have."""

from __future__ import annotations

import base64
import contextlib
import io
from functools import cache

import numpy as np
import pytest
from PIL import Image

from tests.waiting import PATIENCE


def picture(colour=(200, 10, 10), size=(120, 100), kind="PNG"):
    stream = io.BytesIO()
    Image.fromarray(np.full((size[1], size[0], 3), colour, np.uint8)).save(stream, kind)
    return stream.getvalue()


def shown(call):
    """Return the error that a call ends with, by class and what identifies it; None if none."""
    try:
        call()
    except Exception as error:  # noqa: BLE001  whatever the SDK raises is what is looked at
        response = getattr(error, "response", None)
        code = response["Error"]["Code"] if isinstance(response, dict) else None
        status = getattr(error, "status_code", None) or getattr(response, "status_code", None)
        return type(error).__name__, code or status or error.args[0], str(error)
    return None


@cache
def _session(boto3):
    return boto3.Session()  # reads the service's description once


class AwsCaller:
    def __init__(self, service, *, timeout=PATIENCE, key="emulated"):
        import boto3
        from botocore.config import Config

        self.client = _session(boto3).client(
            "rekognition",
            endpoint_url=service.url,
            region_name="us-east-1",
            aws_access_key_id=key,
            aws_secret_access_key="secret",
            config=Config(
                retries={"total_max_attempts": 1},
                read_timeout=timeout,
                connect_timeout=timeout,
                max_pool_connections=64,
                parameter_validation=False,  # the service's checks are what is looked at
            ),
        )

    def ask(self, data, **more):
        response = self.client.detect_labels(Image={"Bytes": data}, **{"MinConfidence": 0, **more})
        return [(label["Name"], label["Confidence"] / 100) for label in response["Labels"]]

    def close(self):
        self.client.close()


class GoogleCaller:
    def __init__(self, service, *, timeout=PATIENCE, key=None):
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import vision

        self.vision, self.timeout = vision, timeout
        self.client = vision.ImageAnnotatorClient(
            transport="rest",
            credentials=AnonymousCredentials(),
            client_options={"api_endpoint": service.url},
        )
        if key:
            self.client.transport._session.headers["X-Goog-Api-Key"] = key
        self.client.transport._session.adapters["https://"].max_retries.total = 0
        adapter = self.client.transport._session.get_adapter("http://")
        adapter.init_poolmanager(64, 64)

    def responses(self, *data, features=None):
        features = features or [self.vision.Feature(type_="LABEL_DETECTION", max_results=100)]
        requests = [
            self.vision.AnnotateImageRequest(
                image=self.vision.Image(content=each), features=features
            )
            for each in data
        ]
        return self.client.batch_annotate_images(
            requests=requests, retry=None, timeout=self.timeout
        ).responses

    def ask(self, data):
        (response,) = self.responses(data)
        if response.error.code:
            raise RuntimeError(f"{response.error.code} {response.error.message}")
        return [(label.description, label.score) for label in response.label_annotations]

    def close(self):
        self.client.transport.close()


class GrpcCaller(GoogleCaller):
    def __init__(self, service, *, timeout=PATIENCE, key=None):
        import grpc
        from google.cloud import vision
        from google.cloud.vision_v1.services.image_annotator import transports

        self.vision, self.timeout = vision, timeout
        self.channel = grpc.insecure_channel(service.address)
        transport = transports.ImageAnnotatorGrpcTransport(channel=self.channel)
        self.client = vision.ImageAnnotatorClient(transport=transport)

    def close(self):
        self.channel.close()


class AzureCaller:
    def __init__(self, service, *, timeout=PATIENCE, key="emulated"):
        from azure.cognitiveservices.vision.computervision import ComputerVisionClient
        from msrest.authentication import CognitiveServicesCredentials

        self.client = ComputerVisionClient(service.url, CognitiveServicesCredentials(key))
        self.client.config.retry_policy.policy.total = 0
        self.client.config.connection.timeout = timeout

    def ask(self, data):
        tags = self.client.tag_image_in_stream(io.BytesIO(data)).tags
        return None if tags is None else [(tag.name, tag.confidence) for tag in tags]

    def close(self):
        self.client.close()


class Azure4Caller:
    def __init__(self, service, *, timeout=PATIENCE, key="emulated"):
        from azure.ai.vision.imageanalysis import ImageAnalysisClient
        from azure.core.credentials import AzureKeyCredential

        self.client = ImageAnalysisClient(
            service.url, AzureKeyCredential(key), retry_total=0, read_timeout=timeout
        )

    def ask(self, data):
        tags = self.client.analyze(data, visual_features=["TAGS"]).tags
        return None if tags is None else [(tag.name, tag.confidence) for tag in tags.list]

    def close(self):
        self.client.close()


class ClarifaiError(Exception):
    pass


class ClarifaiCaller:
    PATH = "/v2/users/clarifai/apps/main/models/general-image-recognition/outputs"

    def __init__(self, service, *, timeout=PATIENCE, key="emulated"):
        import requests

        self.session, self.url, self.timeout = requests.Session(), service.url, timeout
        self.session.headers["Authorization"] = f"Key {key}"
        self.session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=64))

    def post(self, *data, path=PATH, **more):
        inputs = [{"data": {"image": {"base64": base64.b64encode(d).decode()}}} for d in data]
        return self.session.post(
            self.url + path, json={"inputs": inputs, **more}, timeout=self.timeout
        )

    def ask(self, data):
        response = self.post(data)
        body = response.json()
        if response.status_code != 200 or body["status"]["code"] != 10000:
            inner = [output["status"]["code"] for output in body["outputs"]]
            raise ClarifaiError(response.status_code, body["status"]["code"], *inner)
        return [(c["name"], c["value"]) for c in body["outputs"][0]["data"]["concepts"]]

    def close(self):
        self.session.close()


CALLERS = {
    "aws": AwsCaller,
    "google": GoogleCaller,
    "google-grpc": GrpcCaller,
    "azure": AzureCaller,
    "azure4": Azure4Caller,
    "clarifai": ClarifaiCaller,
}


@pytest.fixture
def calling():
    """Return a caller of a service; it is closed after the test."""
    with contextlib.ExitStack() as stack:

        def call(service, **options):
            caller = CALLERS[service.name](service, **options)
            stack.callback(caller.close)
            return caller

        yield call
