"""What is particular to each provider: what it takes, what it refuses, and in which words."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from smoothapi.answer import Answer, Label
from smoothapi.services import by_colour, serve
from tests.unit.services.conftest import ClarifaiCaller, picture, shown
from tests.waiting import PATIENCE

RECORDED = Path(__file__).parents[2] / "data" / "answers"
PARTS = Answer(
    (
        Label("School Bus", 0.99, ("Bus", "Vehicle"), ("Vehicles and Automotive",)),
        Label("Bus", 0.99, ("Vehicle",), ("Vehicles and Automotive",)),
        Label("Wheel", 0.6),
        Label("Racy", 0.5),
    ),
    model_version="9.9",
)
ARN = "arn:aws:rekognition:eu-west-1:123456789012:project/p/version/p.1/1700000000000"


def recorded(provider):
    return (RECORDED / f"binoculars.jpg.{provider}.json").read_bytes()


class TestAws:
    @pytest.fixture
    def client(self, calling):
        with serve("aws", lambda _: PARTS) as self.service:
            yield calling(self.service).client

    def test_labels_with_parents_categories_and_model_version(self, client):
        response = client.detect_labels(Image={"Bytes": picture()}, MinConfidence=0)
        first = response["Labels"][0]
        assert first["Parents"] == [{"Name": "Bus"}, {"Name": "Vehicle"}]
        assert first["Categories"] == [{"Name": "Vehicles and Automotive"}]
        assert response["LabelModelVersion"] == "9.9"
        assert response["ResponseMetadata"]["RequestId"]

    def test_the_thresholds_that_apply_if_none_is_given(self, client):
        def names(labels):
            return [label["Name"] for label in labels]

        image = {"Bytes": picture()}
        every = ["School Bus", "Bus", "Wheel", "Racy"]
        assert names(client.detect_labels(Image=image)["Labels"]) == every[:3]  # 55
        assert names(client.detect_moderation_labels(Image=image)["ModerationLabels"]) == every
        many = {"Image": image, "MinConfidence": 0}
        assert names(client.detect_labels(**many, MaxLabels=2)["Labels"]) == every[:2]
        custom = client.detect_custom_labels(**many, MaxResults=3, ProjectVersionArn=ARN)
        assert names(custom["CustomLabels"]) == every[:3]
        assert self.service.received[2].parameters == {"MinConfidence": 0, "MaxLabels": 2}

    def test_every_answer_validates_against_botocores_model(self, client):
        import botocore.session
        from botocore.validate import ParamValidator

        model = botocore.session.get_session().get_service_model("rekognition")
        bodies = []
        client.meta.events.register(
            "before-parse.rekognition",
            lambda response_dict, **_: bodies.append(response_dict["body"]),
        )
        image = {"Bytes": picture()}
        client.detect_labels(Image=image)
        client.detect_moderation_labels(Image=image)
        client.detect_custom_labels(Image=image, ProjectVersionArn=ARN)
        names = ("DetectLabels", "DetectModerationLabels", "DetectCustomLabels")
        for name, body in zip(names, bodies, strict=True):
            output = json.loads(body)
            report = ParamValidator().validate(output, model.operation_model(name).output_shape)
            assert not report.has_errors(), report.generate_report()
            assert len(output) >= 1

    @pytest.mark.parametrize(
        ("parameters", "code"),
        [
            ({"Image": {"Bytes": picture(size=(120, 79))}}, "InvalidParameterException"),
            ({"Image": {"Bytes": picture(size=(10_001, 80))}}, "ImageTooLargeException"),
            ({"Image": {"Bytes": picture(kind="GIF")}}, "InvalidImageFormatException"),
            ({"Image": {"Bytes": bytes(5_242_881)}}, "ValidationException"),
            (
                {"Image": {"S3Object": {"Bucket": "bucket", "Name": "n"}}},
                "InvalidS3ObjectException",
            ),
            ({"Image": {}}, "InvalidParameterException"),
            ({"MinConfidence": 100.5}, "ValidationException"),
            ({"MinConfidence": -1.0}, "ValidationException"),
            ({"Features": ["SOUNDS"]}, "ValidationException"),
        ],
    )
    def test_what_rekognition_refuses(self, client, parameters, code):
        error = shown(lambda: client.detect_labels(**{"Image": {"Bytes": picture()}, **parameters}))
        assert error[1] == code
        assert self.service.billed == 0
        assert self.service.received[0].operation == "DetectLabels"
        assert self.service.received[0].refused == code

    def test_sides_and_bytes_at_the_limit_are_taken(self, client):
        for size in ((80, 80), (10_000, 80)):
            client.detect_labels(Image={"Bytes": picture(size=size)})
        padded = picture(kind="JPEG")
        client.detect_labels(Image={"Bytes": padded + bytes(5_242_880 - len(padded))})
        assert self.service.billed == 3

    @pytest.mark.parametrize(
        ("headers", "code"),
        [
            ({"Authorization": None}, "MissingAuthenticationTokenException"),
            ({"Authorization": "Bearer x"}, "IncompleteSignatureException"),
            ({"X-Amz-Date": None}, "IncompleteSignatureException"),
            ({"X-Amz-Target": "RekognitionService.DetectCats"}, "UnknownOperationException"),
            ({"X-Amz-Target": None}, "UnknownOperationException"),
            ({"Content-Type": "application/json"}, "UnknownOperationException"),
        ],
    )
    def test_what_is_not_signed_or_not_json_1_1(self, client, headers, code):
        import requests

        sent = {
            "Authorization": "AWS4-HMAC-SHA256 Credential=k/20261122/us-east-1/rekognition/"
            "aws4_request, SignedHeaders=host, Signature=00",
            "X-Amz-Date": "20261122T000000Z",
            "X-Amz-Target": "RekognitionService.DetectLabels",
            "Content-Type": "application/x-amz-json-1.1",
        }
        sent = {name: value for name, value in {**sent, **headers}.items() if value}
        body = {"Image": {"Bytes": base64.b64encode(picture()).decode()}}
        response = requests.post(self.service.url, json.dumps(body), headers=sent, timeout=PATIENCE)
        assert response.status_code == 400
        assert response.json()["__type"] == code
        assert response.headers["x-amzn-errortype"] == code
        assert response.headers["x-amzn-requestid"]

    def test_a_recorded_answer_is_served_as_it_is(self, calling):
        with serve("aws", replies=lambda _: recorded("rekognition")) as service:
            answer = calling(service).ask(picture())
        assert answer[:3] == [
            ("Plant", pytest.approx(0.969150161743164)),
            ("Potted Plant", pytest.approx(0.969150161743164)),
            ("Binoculars", pytest.approx(0.9309116363525391)),
        ]


@pytest.mark.parametrize("provider", ["google", "google-grpc"])
class TestGoogle:
    @pytest.fixture
    def caller(self, provider, calling):
        with serve(provider, lambda _: PARTS) as self.service:
            yield calling(self.service)

    def test_each_picture_has_its_own_answer_or_error(self, caller):
        good, bad, again = caller.responses(picture(), b"no picture", picture((0, 0, 0)))
        assert [label.description for label in good.label_annotations][:2] == ["School Bus", "Bus"]
        assert (bad.error.code, bad.error.message) == (3, "Bad image data.")
        assert not good.error.code
        assert again.label_annotations == good.label_annotations
        assert self.service.billed == 2
        assert self.service.received[0].pictures == 2

    def test_features_decide_what_is_said(self, caller):
        vision = caller.vision
        (labels,) = caller.responses(
            picture(), features=[vision.Feature(type_="LABEL_DETECTION", max_results=2)]
        )
        assert len(labels.label_annotations) == 2
        assert not labels.safe_search_annotation
        (safe,) = caller.responses(
            picture(), features=[vision.Feature(type_="SAFE_SEARCH_DETECTION")]
        )
        assert not safe.label_annotations
        assert safe.safe_search_annotation.racy == vision.Likelihood.POSSIBLE
        assert safe.safe_search_annotation.adult == vision.Likelihood.VERY_UNLIKELY

    @pytest.mark.parametrize(
        ("count", "feature", "words"),
        [
            (17, "LABEL_DETECTION", "Too many images"),
            (1, "FACE_DETECTION", "not emulated"),
            (1, 0, "unspecified"),
        ],
    )
    def test_what_google_refuses(self, caller, count, feature, words):
        asked = [caller.vision.Feature(type_=feature)]
        assert words in shown(lambda: caller.responses(*[picture()] * count, features=asked))[2]
        assert self.service.billed == 0

    def test_16_pictures_are_taken(self, caller):
        assert len(caller.responses(*[picture()] * 16)) == 16
        assert self.service.billed == 16

    def test_no_picture_and_a_picture_elsewhere(self, caller):
        vision = caller.vision
        source = vision.ImageSource(image_uri="https://example.com/a.jpg")
        feature = vision.Feature(type_="LABEL_DETECTION")
        requests = [
            vision.AnnotateImageRequest(image=image, features=[feature])
            for image in (vision.Image(), vision.Image(source=source))
        ]
        response = caller.client.batch_annotate_images(
            requests=requests, retry=None, timeout=PATIENCE
        )
        words = [each.error.message for each in response.responses]
        assert words[0] == "No image present."
        assert words[1].startswith("We can not access the URL")
        both = vision.Image(content=picture(), source=source)
        request = vision.AnnotateImageRequest(image=both, features=[feature])
        error = shown(
            lambda: caller.client.batch_annotate_images(
                requests=[request], retry=None, timeout=PATIENCE
            )
        )
        assert "Only one of image content and uri" in error[2]

    def test_a_recorded_answer_is_served_as_it_is(self, provider, calling):
        with serve(provider, replies=lambda _: recorded("google")) as service:
            answer = calling(service).ask(picture())
        assert answer == [
            ("man made object", pytest.approx(0.92124164)),
            ("furniture", pytest.approx(0.5682148)),
        ]


@pytest.mark.parametrize("provider", ["google", "google-grpc"])
def test_google_takes_no_request_over_10_mb(provider, calling):
    with serve(provider, by_colour) as service:
        caller = calling(service)
        data = picture(kind="JPEG")
        fits = data + bytes(7 * 2**20)
        assert caller.ask(fits)[0][0] == "red"
        error = shown(lambda: caller.ask(data + bytes(11 * 2**20)))
        assert "exceeds the limit" in error[2] or "larger than max" in error[2], error
        assert service.billed == 1


def test_google_takes_no_more_than_75_megapixels():
    huge = io.BytesIO()
    Image.new("1", (9000, 8400)).save(huge, "PNG")
    body = {"requests": [{"image": {"content": base64.b64encode(huge.getvalue()).decode()}}]}
    import requests

    with serve("google", by_colour) as service:
        url = f"{service.url}/v1/images:annotate"
        [told] = requests.post(url, json=body, timeout=PATIENCE).json()["responses"]
    assert told == {
        "error": {"code": 3, "message": "Image too large. Please limit to 75 megapixels."}
    }


def test_google_refuses_fields_that_it_does_not_know():
    import requests

    with serve("google", by_colour) as service:
        for body, words in [
            ({"requests": [{"imge": {}}]}, "Unknown name \"imge\" at 'requests[0]'"),
            ({"requsts": []}, 'Unknown name "requsts"'),
            ({"requests": []}, "at least one"),
            ({"requests": [{"features": [{"type": "CATS"}]}]}, "CATS"),
            ({"requests": [{"features": [{"type": True}]}]}, "True"),
        ]:
            error = requests.post(
                f"{service.url}/v1/projects/p/images:annotate", json=body, timeout=PATIENCE
            ).json()["error"]
            assert (error["code"], error["status"]) == (400, "INVALID_ARGUMENT")
            assert words in error["message"]


class TestAzure:
    @pytest.fixture
    def client(self, calling):
        with serve("azure", lambda _: PARTS) as self.service:
            yield calling(self.service).client

    def test_features_decide_what_is_said(self, client):
        told = client.analyze_image_in_stream(
            io.BytesIO(picture()), visual_features=["Tags", "Categories", "Description", "Adult"]
        )
        assert [tag.name for tag in told.tags] == ["School Bus", "Bus", "Wheel", "Racy"]
        assert [(c.name, c.score) for c in told.categories] == [("Vehicles and Automotive", 0.99)]
        assert told.description.captions[0].text == "School Bus"
        assert (told.adult.racy_score, told.adult.is_racy_content) == (0.5, False)
        assert (told.metadata.width, told.metadata.height, told.metadata.format) == (
            120,
            100,
            "Png",
        )
        assert told.model_version == "9.9"
        plain = client.analyze_image_in_stream(io.BytesIO(picture()))
        assert (plain.tags, len(plain.categories)) == (None, 1)  # what Azure does if none is named
        assert "transfer-encoding" in self.service.received[0].headers_seen  # the SDK's chunks

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (picture(size=(49, 60)), "Image must be at least 50 pixels in width and height"),
            (picture(kind="TIFF"), "Input data is not a valid image."),
            (bytes(4 * 2**20 + 1), "Input image is too large."),
            (b"", "Image size is zero."),
        ],
    )
    def test_what_azure_refuses(self, client, data, words):
        error = shown(lambda: client.tag_image_in_stream(io.BytesIO(data)))
        assert error[1:] == (400, f"(InvalidRequest) {words}")
        assert self.service.billed == 0

    def test_parameters_that_azure_refuses(self, client):
        stream = lambda: io.BytesIO(picture())  # noqa: E731
        for call, words in [
            (lambda: client.tag_image_in_stream(stream(), language="xx"), "language"),
            (lambda: client.analyze_image_in_stream(stream(), ["Faces"]), "not emulated"),
        ]:
            assert words in shown(call)[2]
        assert self.service.billed == 0

    def test_a_url_and_another_kind_of_body(self, client):
        assert "not accessible" in shown(lambda: client.tag_image("https://example.com/a.jpg"))[2]
        import requests

        sent = {"Ocp-Apim-Subscription-Key": "k", "Content-Type": "text/plain"}
        url = f"{self.service.url}/vision/v3.2/tag"
        assert requests.post(url, picture(), headers=sent, timeout=PATIENCE).status_code == 415
        sent["Content-Type"] = "application/octet-stream"
        url = f"{self.service.url}/vision/v3.2/analyze?visualFeatures=Tags,Smells"
        error = requests.post(url, picture(), headers=sent, timeout=PATIENCE).json()["error"]
        assert error["code"] == "InvalidArgument"
        assert error["innererror"]["code"] == "NotSupportedVisualFeature"

    def test_a_pinned_model_version_is_the_one_that_answers(self, calling):
        with serve("azure", by_colour) as service:
            client = calling(service).client
            told = client.tag_image_in_stream(io.BytesIO(picture()), model_version="2021-04-01")
            assert told.model_version == "2021-04-01"
            assert service.received[0].parameters["model-version"] == "2021-04-01"

    def test_a_recorded_answer_is_served_as_it_is(self, calling):
        with serve("azure", replies=lambda _: recorded("msft")) as service:
            answer = calling(service).ask(picture())
        assert [name for name, _ in answer] == ["tree", "indoor", "window"]


class TestAzure4:
    @pytest.fixture
    def client(self, calling):
        with serve("azure4", lambda _: PARTS) as self.service:
            yield calling(self.service).client

    def test_features_decide_what_is_said(self, client):
        told = client.analyze(picture(), visual_features=["TAGS", "CAPTION"])
        assert [tag.name for tag in told.tags.list] == ["School Bus", "Bus", "Wheel", "Racy"]
        assert (told.caption.text, told.caption.confidence) == ("School Bus", 0.99)
        assert (told.metadata.width, told.model_version) == (120, "9.9")
        assert client.analyze(picture(), visual_features=["CAPTION"]).tags is None

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (picture(size=(49, 60)), "Image must be at least 50 pixels in width and height"),
            (b"no picture", "Input data is not a valid image."),
            (bytes(20 * 2**20 + 1), "Input image is too large."),
        ],
    )
    def test_what_azure_refuses(self, client, data, words):
        name, code, text = shown(lambda: client.analyze(data, visual_features=["TAGS"]))
        assert (name, code) == ("HttpResponseError", 400)
        assert words in text
        assert self.service.billed == 0

    def test_parameters_that_azure_refuses(self, client):
        for options, words in [
            ({"visual_features": ["SMELLS"]}, "not supported"),
            ({"visual_features": ["OBJECTS"]}, "not emulated"),
            ({"visual_features": ["TAGS"], "model_version": "new"}, "Model version"),
        ]:
            assert words in shown(lambda o=options: client.analyze(picture(), **o))[2]
        error = shown(
            lambda: client.analyze_from_url("https://example.com/a", visual_features=["TAGS"])
        )
        assert "not accessible" in error[2]

    def test_without_an_api_version_there_is_no_such_path(self, client):
        import requests

        url = f"{self.service.url}/computervision/imageanalysis:analyze?features=tags"
        sent = {"Ocp-Apim-Subscription-Key": "k", "Content-Type": "application/octet-stream"}
        assert requests.post(url, picture(), headers=sent, timeout=PATIENCE).status_code == 404


class TestClarifai:
    @pytest.fixture
    def caller(self, calling):
        with serve("clarifai", lambda _: PARTS) as self.service:
            yield calling(self.service)

    def test_each_input_has_its_own_status(self, caller):
        body = caller.post(picture(), b"no picture", picture((1, 1, 1))).json()
        assert body["status"]["code"] == 10010
        assert [output["status"]["code"] for output in body["outputs"]] == [10000, 30300, 10000]
        assert body["outputs"][0]["model"]["model_version"]["id"] == "9.9"
        assert self.service.billed == 2

    def test_the_version_in_the_path_is_the_one_that_answers(self, caller):
        path = ClarifaiCaller.PATH.replace("/outputs", "/versions/v7/outputs")
        [output] = caller.post(picture(), path=path).json()["outputs"]
        assert output["model"]["model_version"]["id"] == "v7"

    @pytest.mark.parametrize("newer", [False, True])
    def test_concepts_are_cut_as_asked(self, caller, newer):
        model = {"output_info": {"output_config": {"max_concepts": 2, "min_value": 0.5}}}
        model = {"model_version": model} if newer else model
        [output] = caller.post(picture(), model=model).json()["outputs"]
        assert [c["name"] for c in output["data"]["concepts"]] == ["School Bus", "Bus"]

    def test_128_inputs_are_taken_and_no_more(self, caller):
        tiny = picture(size=(2, 2))
        assert len(caller.post(*[tiny] * 128).json()["outputs"]) == 128
        response = caller.post(*[tiny] * 129)
        assert (response.status_code, response.json()["status"]["code"]) == (400, 11102)
        assert self.service.billed == 128

    @pytest.mark.parametrize(
        ("change", "status", "code"),
        [
            ({"headers": {"Authorization": ""}}, 401, 11009),
            ({"headers": {"Authorization": "Basic x"}}, 401, 11008),
            ({"path": "/v2/users/u/apps/a/models"}, 404, 11101),
            ({"json": {"inputs": []}}, 400, 11102),
            ({"json": {"inputs": [{"data": {}}]}}, 400, 11102),
            ({"json": {"inputs": [{"data": {"image": {"url": "https://x"}}}]}}, 400, 10020),
            ({"data": "{", "json": None}, 400, 11100),
        ],
    )
    def test_what_clarifai_refuses(self, caller, change, status, code):
        path = change.pop("path", ClarifaiCaller.PATH)
        sent = {"json": {"inputs": []}, "timeout": PATIENCE, **change}
        response = caller.session.post(self.service.url + path, **sent)
        assert (response.status_code, response.json()["status"]["code"]) == (status, code)
        assert response.json()["status"]["req_id"]
        assert self.service.billed == 0

    def test_a_recorded_answer_is_served_as_it_is(self, calling):
        with serve("clarifai", replies=lambda _: recorded("clarifai")) as service:
            caller = calling(service)
            assert caller.ask(picture())[:2] == [("window", 0.93623275), ("people", 0.9239916)]
            raw = caller.post(picture()).json()["outputs"][0]
            assert raw == json.loads(recorded("clarifai"))["outputs"][0]


def test_the_same_photo_and_labeller_give_the_same_labels_through_every_protocol(calling):
    from smoothapi.services import PROVIDERS

    answers = {}
    for provider in PROVIDERS:
        with serve(provider, lambda _: PARTS) as service:
            answers[provider] = calling(service).ask(picture())
    for answer in answers.values():
        assert [name for name, _ in answer] == ["School Bus", "Bus", "Wheel", "Racy"]
        assert [score for _, score in answer] == pytest.approx([0.99, 0.99, 0.6, 0.5], abs=1e-6)


def test_recorded_replies_come_before_the_backend_and_only_for_their_picture(calling):
    known = picture((1, 2, 3))
    replies = {known: json.loads(recorded("rekognition"))}
    with serve("aws", by_colour, replies=replies.get) as service:
        caller = calling(service)
        assert caller.ask(known)[0][0] == "Plant"
        assert caller.ask(picture())[0][0] == "red"
    with serve("aws", replies=replies.get) as service:
        error = shown(lambda: calling(service).ask(picture()))
        assert error[1] == "InvalidParameterException"
        assert "No answer is recorded" in error[2]
        assert service.billed == 0
