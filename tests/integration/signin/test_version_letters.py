"""Owners of a version hear by mail that it goes no further, and why."""

from mercat.registry.v1 import registry_pb2 as r

from tests import graphs
from tests.integration.signin.people import Mailbox
from tests.platform import Platform


def test_owners_hear_that_a_version_was_sent_back(platform: Platform, mailbox: Mailbox) -> None:
    maker = platform.publisher()
    about = r.CreateModelRequest(name="letters", summary="s", category="other", task="test", license="MIT")
    model = maker.registry.CreateModel(about).model.model
    platform.validated(maker, model, platform.upload(maker, graphs.tiny()))
    maker.registry.SubmitVersion(r.SubmitVersionRequest(model=model, version="1.0.0"))
    reason = "The licence <MIT> is not that of its weights."
    platform.admin().registry.RejectVersion(r.RejectVersionRequest(model=model, version="1.0.0", reason=reason))
    mail = mailbox.to(maker.email, 1, "was sent back")[-1]
    assert mail["Subject"] == f"{model}@1.0.0 was sent back"
    assert reason in mail.get_body(("plain",)).get_content()  # type: ignore[union-attr]
