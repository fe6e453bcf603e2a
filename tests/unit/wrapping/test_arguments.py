"""What the arguments of a wrapped call say is honoured, SDK by SDK."""

from __future__ import annotations

import io
import json
import time
from decimal import Decimal

import numpy as np
import pytest

from smoothapi import Budget, Label, UsageError, certificate_of, finding_of, verify
from smoothapi.services import serve
from tests.unit.wrapping.conftest import KITS, PHOTO, PIXELS, digest, labeller, png

ARN = "arn:aws:rekognition:us-east-1:123456789012:project/parts/version/parts.2/1700000000000"


@pytest.fixture
def kit(request):
    return KITS[request.cls.sdk]


def asked(service):
    return [received.operation for received in service.received], [
        dict(received.parameters) for received in service.received
    ]


class TestAws:
    sdk = "aws"

    def test_least_confidence_is_what_counts_as_present(self, kit, service, wrapped):
        response = wrapped().detect_labels(Image={"Bytes": PHOTO}, MinConfidence=96.5, MaxLabels=3)
        assert [row["Name"] for row in response["Labels"]] == ["Bus"]
        certificate = certificate_of(response)
        assert certificate.target["least"] == 0.965
        assert certificate.target["labels"] == ["Bus"]
        own, *votes = asked(service)[1]
        assert own == {"MinConfidence": 96.5, "MaxLabels": 3}
        # A copy is asked for more labels, so that a change of places is no absence.
        assert all(vote == {"MinConfidence": 96.5, "MaxLabels": 100} for vote in votes)

    def test_the_services_default_where_nothing_is_said(self, kit, service, wrapped):
        certificate = certificate_of(wrapped().detect_labels(Image={"Bytes": PHOTO}))
        assert certificate.target["least"] == 0.55
        assert asked(service)[1][0] == {}

    def test_most_labels(self, kit, service, wrapped):
        response = wrapped().detect_labels(Image={"Bytes": PHOTO}, MaxLabels=1)
        assert [row["Name"] for row in response["Labels"]] == ["Bus"]
        assert certificate_of(response).target["labels"] == ["Bus"]

    def test_all_else_in_the_response_stays(self, kit, service, wrapped):
        plain = kit.client(service).detect_labels(Image={"Bytes": PHOTO})
        response = wrapped().detect_labels(Image={"Bytes": PHOTO})
        assert set(response) == {*plain, "Smoothapi"}
        assert response["LabelModelVersion"] == plain["LabelModelVersion"]
        assert response["ResponseMetadata"]["HTTPStatusCode"] == 200
        assert response["Labels"][0]["Parents"] == [{"Name": "Vehicle"}]
        assert set(response["Labels"][0]) == set(plain["Labels"][0])

    @pytest.mark.parametrize("kind", [bytearray, io.BytesIO])
    def test_bytes_as_boto3_takes_them(self, kind, kit, service, wrapped):
        response = wrapped().detect_labels(Image={"Bytes": kind(PHOTO)})
        assert verify(certificate_of(response), PHOTO)

    def test_moderation_and_custom_labels(self, kit, wrapped):
        def backend(pixels):
            del pixels
            return [Label("Gun", 0.9, ("Weapons",)), Label("Weapons", 0.9)]

        with serve("aws", backend) as service:
            client = wrapped(kit.client(service))
            moderation = client.detect_moderation_labels(Image={"Bytes": PHOTO})
            custom = client.detect_custom_labels(
                Image={"Bytes": PHOTO}, ProjectVersionArn=ARN, MaxResults=7
            )
            client.close()
        rows = moderation["ModerationLabels"]
        assert {row["Name"]: row["Confidence"] for row in rows} == {"Gun": 90.0, "Weapons": 90.0}
        assert rows[0]["ParentName"] == "Weapons"
        assert certificate_of(moderation).identity["operation"] == "moderation"
        assert certificate_of(moderation).target["least"] == 0.5
        assert [row["Confidence"] for row in custom["CustomLabels"]] == [90.0, 90.0]
        assert certificate_of(custom).model_version == "parts.2/1700000000000"
        parameters = [r.parameters for r in service.received if r.operation == "DetectCustomLabels"]
        assert parameters[0] == {"ProjectVersionArn": ARN, "MaxResults": 7}
        # The model's own thresholds, as in the caller's call.
        assert all("MinConfidence" not in one for one in parameters)

    def test_a_decimal_is_a_number_for_boto3_too(self, kit, service, wrapped):
        response = wrapped().detect_labels(Image={"Bytes": PHOTO}, MinConfidence=Decimal("96.5"))
        assert certificate_of(response).target["least"] == 0.965

    def test_features_without_labels_pass_through(self, kit, service, wrapped):
        response = wrapped().detect_labels(Image={"Bytes": PHOTO}, Features=["IMAGE_PROPERTIES"])
        assert "Smoothapi" not in response
        assert len(service.received) == 1

    @pytest.mark.parametrize(
        "arguments",
        [{}, {"Image": None}, {"Image": {}}, {"Image": {"Bytes": 3}}, {"Image": {"Bytes": b""}},
         {"Image": {"Bytes": PHOTO}, "MinConfidence": 101}, {"Image": {"Bytes": PHOTO}, "Nonsense": 1},
         {"Image": {"Bytes": PHOTO}, "MinConfidence": "high"}, {"Image": {"Bytes": PHOTO}, "MaxLabels": "3"}],
    )  # fmt: skip
    def test_what_boto3_or_the_service_refuses_they_refuse(self, arguments, kit, service, wrapped):
        inner = kit.client(service)
        said = []
        for client in (inner, wrapped(inner)):
            with pytest.raises(Exception) as caught:
                client.detect_labels(**arguments)
            said.append((type(caught.value).__name__, str(caught.value)))
        assert said[0] == said[1]
        with pytest.raises(inner.exceptions.ClientError if len(service.received) else Exception):
            wrapped(inner).detect_labels(**arguments)

    def test_positional_arguments_are_boto3s_typeerror(self, kit, service, wrapped):
        with pytest.raises(TypeError, match="keyword arguments"):
            wrapped().detect_labels({"Bytes": PHOTO})

    def test_the_clients_parts_are_the_clients(self, kit, service, wrapped):
        inner = kit.client(service)
        client = wrapped(inner)
        assert client.meta is inner.meta
        assert client.exceptions is inner.exceptions
        assert client.can_paginate("list_collections")
        assert type(client.get_paginator("list_collections")).__name__.endswith("ListCollections")
        assert client.detect_labels.__name__ == "detect_labels"
        with pytest.raises(inner.exceptions.InvalidImageFormatException):
            client.detect_labels(Image={"Bytes": b"no picture"})

    def test_a_response_can_be_dumped_and_its_certificate_read_again(self, kit, service, wrapped):
        from smoothapi import Certificate

        response = wrapped().detect_labels(Image={"Bytes": PHOTO})
        again = json.loads(json.dumps(response))
        assert Certificate.from_dict(again["Smoothapi"]["certificate"]) == certificate_of(response)
        assert certificate_of(again) == certificate_of(response)


class TestGoogle:
    sdk = "google"

    def test_most_results_and_a_file(self, kit, service, wrapped):
        client = wrapped()
        response = client.label_detection(io.BytesIO(PHOTO), max_results=1)
        assert [a.description for a in response.label_annotations] == ["Bus"]
        assert certificate_of(response).target["labels"] == ["Bus"]
        features = [one["features"][0][0] for one in asked(service)[1]]
        assert features[0]["maxResults"] == 1
        assert {one["maxResults"] for one in features[1:]} == {50}

    def test_a_file_that_asks_for_no_labels_is_left_unread(self, kit, service, wrapped):
        from google.cloud import vision

        stream = io.BytesIO(PHOTO)
        request = {
            "image": stream,
            "features": [{"type_": vision.Feature.Type.SAFE_SEARCH_DETECTION}],
        }
        response = wrapped().annotate_image(request)
        assert "safe_search_annotation" in response
        with pytest.raises(UsageError):
            certificate_of(response)

    def test_other_features_stay_and_are_not_asked_of_copies(self, kit, service, wrapped):
        from google.cloud import vision

        kinds = [vision.Feature.Type.SAFE_SEARCH_DETECTION, vision.Feature.Type.LABEL_DETECTION]
        request = {"image": {"content": PHOTO}, "features": [{"type_": kind} for kind in kinds]}
        response = wrapped().annotate_image(request)
        assert "safe_search_annotation" in response
        assert len(response.label_annotations) == 2
        own, *votes = asked(service)[1]
        assert len(own["features"][0]) == 2
        assert all(len(one) == 1 for vote in votes for one in vote["features"])

    def test_a_batch_keeps_its_order_and_each_picture_its_certificate(self, kit, service, wrapped):
        from google.cloud import vision

        other = np.full((80, 90, 3), 99, np.uint8)

        def one(content, kind):
            return {"image": {"content": content}, "features": [{"type_": kind}]}

        labels, safe = (
            vision.Feature.Type.LABEL_DETECTION,
            vision.Feature.Type.SAFE_SEARCH_DETECTION,
        )
        response = wrapped().batch_annotate_images(
            requests=[one(PHOTO, labels), one(PHOTO, safe), one(png(other), labels)]
        )
        assert type(response) is vision.BatchAnnotateImagesResponse
        assert [len(r.label_annotations) for r in response.responses] == [2, 0, 3]
        assert verify(certificate_of(response), PHOTO)
        assert verify(certificate_of(response, 2), png(other))
        with pytest.raises(UsageError):
            certificate_of(response, 1)
        with pytest.raises(UsageError):
            certificate_of(response, 3)

    def test_the_callers_retry_does_not_multiply(self, kit, wrapped):
        from google.api_core.retry import Retry

        with serve("google", labeller, faults="@1- 503") as service:
            client = wrapped(kit.client(service))
            with pytest.raises(Exception, match="503"):
                client.annotate_image(
                    {"image": {"content": PHOTO}, "features": [{"type_": 4}]},
                    retry=Retry(initial=0.01),
                )
            client.close()
            assert len(service.received) <= 60  # ours until the deadline, and never theirs on top

    def test_a_batch_with_an_empty_request_certifies_the_others(self, kit, service, wrapped):
        labels = [{"type_": 4}]
        requests = [{"image": {"content": PHOTO}, "features": labels}, {"features": labels}]
        response = wrapped().batch_annotate_images(requests=requests)
        assert verify(certificate_of(response), PHOTO)
        assert response.responses[1].error.code
        with pytest.raises(UsageError, match="no such certificate"):
            finding_of(response, 1)

    def test_what_has_nothing_to_certify_goes_in_one_request_before_any_vote(
        self, kit, service, wrapped
    ):
        safe, labels = [{"type_": 6}], [{"type_": 4}]
        response = wrapped().batch_annotate_images(
            requests=[
                {"image": {"content": PHOTO}, "features": safe},
                {"image": {"content": PHOTO}, "features": labels},
                {"image": {"content": png(PIXELS[:, 5:])}, "features": safe},
            ]
        )
        assert ["safe_search_annotation" in r for r in response.responses] == [True, False, True]
        assert service.received[0].pictures == 2
        certificate = certificate_of(response, 1)
        assert sum(r.pictures for r in service.received) == 2 + certificate.attempts
        assert service.received[1].pictures == 1  # the caller's own

    def test_what_has_nothing_to_certify_may_fail_before_a_vote_is_paid_for(self, kit, wrapped):
        requests = [
            {"image": {"content": PHOTO}, "features": [{"type_": 4}]},
            {"image": {"content": PHOTO}, "features": [{"type_": 6}]},
        ]
        with serve("google", labeller, faults="@1- 403") as service:
            client = wrapped(kit.client(service))
            with pytest.raises(Exception, match="403"):
                client.batch_annotate_images(requests=requests)
            client.close()
            assert len(service.received) == 1

    def test_pictures_at_a_uri_are_refused_or_passed_one_by_one(self, kit, service, wrapped):
        labels = [{"type_": 4}]
        requests = [
            {"image": {"source": {"image_uri": "http://127.0.0.1:9/x.png"}}, "features": labels},
            {"image": {"content": PHOTO}, "features": labels},
        ]
        with pytest.raises(UsageError, match="remote='pass'"):
            wrapped().batch_annotate_images(requests=requests)
        assert not service.received
        response = wrapped(remote="pass").batch_annotate_images(requests=requests)
        assert finding_of(response, 0).ended == "elsewhere"
        assert finding_of(response.responses[0]).ended == "elsewhere"
        assert verify(certificate_of(response, 1), PHOTO)

    def test_each_picture_of_a_batch_counts_in_the_budget(self, kit, service, wrapped):
        labels = [{"type_": 4}]
        photos = [PHOTO, *(png(PIXELS[:, i:]) for i in (5, 6, 7))]
        response = wrapped(budget=Budget(attempts=30), otherwise="plain").batch_annotate_images(
            requests=[{"image": {"content": photo}, "features": labels} for photo in photos]
        )
        findings = [finding_of(response, number) for number in range(4)]
        assert findings[0].certified
        assert [finding.ended for finding in findings[2:]] == ["budget", "budget"]
        beyond = sum(not finding.certified for finding in findings)
        assert sum(r.pictures for r in service.received) <= 30 + beyond

    @pytest.mark.timeout(60)
    def test_a_batch_has_one_deadline(self, kit, wrapped):
        def slow(pixels):
            time.sleep(0.05)
            return labeller(pixels)

        labels = [{"type_": 4}]
        photos = [PHOTO, *(png(PIXELS[:, i:]) for i in (5, 6))]
        with serve("google", slow) as service:
            client = wrapped(kit.client(service), within=0.3, otherwise="plain", max_votes=1000)
            response = client.batch_annotate_images(
                requests=[{"image": {"content": photo}, "features": labels} for photo in photos]
            )
            client.close()
        assert {finding_of(response, number).ended for number in range(3)} == {"deadline"}

    def test_content_beside_a_uri_is_googles_to_judge(self, kit, service, wrapped):
        from google.api_core.exceptions import BadRequest

        image = {"content": PHOTO, "source": {"image_uri": "http://127.0.0.1:9/x.png"}}
        with pytest.raises(BadRequest, match="Only one"):
            wrapped().annotate_image({"image": image, "features": [{"type_": 4}]})
        assert len(service.received) == 1

    def test_metadata_goes_with_every_request(self, kit, service, wrapped):
        from google.cloud import vision

        wrapped().label_detection(vision.Image(content=PHOTO), metadata=[("x-of-the-caller", "1")])
        assert all("x-of-the-caller" in received.headers_seen for received in service.received)


class TestAzure:
    sdk = "azure"

    def test_language_model_and_features(self, kit, service, wrapped):
        response = wrapped().analyze_image_in_stream(
            io.BytesIO(PHOTO), ["Tags", "Adult"], model_version="2021-04-01", language="es"
        )
        assert [tag.name for tag in response.tags] == ["Bus", "Vehicle"]
        assert response.adult is not None
        assert response.categories is None
        own, *votes = asked(service)[1]
        assert own["visualFeatures"] == "Tags,Adult"
        assert all(
            one["model-version"] == "2021-04-01" and one["language"] == "es"
            for one in [own, *votes]
        )
        assert certificate_of(response).identity["operation"] == "tags"

    def test_features_without_labels_pass_through(self, kit, service, wrapped):
        response = wrapped().analyze_image_in_stream(io.BytesIO(PHOTO), visual_features=["Adult"])
        assert not hasattr(response, "smoothapi")
        assert len(service.received) == 1

    def test_raw_responses(self, kit, service, wrapped):
        raw = wrapped().tag_image_in_stream(io.BytesIO(PHOTO), raw=True)
        assert raw.response.status_code == 200
        assert certificate_of(raw) is certificate_of(raw.output)
        assert [tag.name for tag in raw.output.tags] == ["Bus", "Vehicle"]

    def test_a_generator_as_the_sdk_takes_it(self, kit, service, wrapped):
        response = wrapped().tag_image_in_stream(
            PHOTO[i : i + 999] for i in range(0, len(PHOTO), 999)
        )
        assert verify(certificate_of(response), PHOTO)

    def test_the_client_given_keeps_its_retries(self, kit, service, wrapped):
        inner = kit.client(service)
        before = inner.config.retry_policy.policy.total
        kit.label(wrapped(inner))
        assert inner.config.retry_policy.policy.total == before != 0


class TestAzure4:
    sdk = "azure4"

    def test_language_model_and_features(self, kit, service, wrapped):
        from azure.ai.vision.imageanalysis.models import VisualFeatures

        response = wrapped().analyze(
            PHOTO,
            visual_features=[VisualFeatures.TAGS, VisualFeatures.CAPTION],
            language="en",
            model_version="2023-10-01",
        )
        assert [tag.name for tag in response.tags.list] == ["Bus", "Vehicle"]
        assert response.caption.text
        own, *votes = asked(service)[1]
        assert own["features"] == "tags,caption"
        assert all(vote["features"] == "tags" for vote in votes)
        assert all(one["model-version"] == "2023-10-01" for one in [own, *votes])

    def test_what_cannot_carry_a_certificate_is_refused(self, kit, service, wrapped):
        with pytest.raises(UsageError, match="cls"):
            wrapped().analyze(PHOTO, ["tags"], cls=lambda response, parsed, headers: parsed)
        with pytest.raises(UsageError, match="model_version"):
            wrapped().analyze(PHOTO, ["tags"], model_version="newest please")
        assert not service.received

    def test_a_file_as_the_sdk_takes_it(self, kit, service, wrapped):
        response = wrapped().analyze(io.BytesIO(PHOTO), ["tags"])
        assert verify(certificate_of(response), PHOTO)

    def test_features_without_tags_pass_through(self, kit, service, wrapped):
        response = wrapped().analyze(PHOTO, ["caption"])
        assert not hasattr(response, "smoothapi")


def test_the_labeller_is_what_these_tests_take_it_for():
    names = [label.name for label in labeller(PIXELS)]
    assert names == ["Bus", "Vehicle", "Van"]
    assert digest(PIXELS) != digest(PIXELS[:, :90])
