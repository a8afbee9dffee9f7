"""The queue of the bucket's notifications: Amazon SQS, or anything that speaks its protocol."""

from collections.abc import Sequence
from math import ceil
from typing import Any, NamedTuple

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from dagster import ConfigurableResource
from pydantic import Field, PrivateAttr

from resources.aws import patience
from speech.errors import SourceUnavailable
from speech.types import Seconds

AT_ONCE = 10
"""The most messages that SQS gives or deletes in one call."""

HIDDEN_S = 120
"""A message that was received and not deleted shows up again after so many seconds: longer than a tick."""


class Message(NamedTuple):
    """One message; ``receipt`` is what deletes it."""

    receipt: str
    body: str


class EventQueue(ConfigurableResource[Any]):
    """A queue by its URL; credentials come from the usual ``AWS_*`` variables.

    All methods raise :class:`~speech.errors.SourceUnavailable` when the queue cannot be reached.
    """

    url: str = Field(description="URL of the SQS queue that the bucket's notifications go to")
    _client: Any = PrivateAttr(default=None)

    def receive(self) -> list[Message]:
        """Up to ten messages, those that are there now; they stay until they are deleted."""
        answer = self._ask(
            "receive_message", MaxNumberOfMessages=AT_ONCE, VisibilityTimeout=HIDDEN_S, WaitTimeSeconds=0
        )
        return [Message(found["ReceiptHandle"], found["Body"]) for found in answer.get("Messages", ())]

    def delete(self, messages: Sequence[Message]) -> None:
        """Remove messages. One that will not go comes back, and by then is no news."""
        self._ask_of_each("delete_message_batch", messages)

    def postpone(self, messages: Sequence[Message], wait_s: Seconds) -> None:
        """Hide messages for so long, then they are given out again."""
        self._ask_of_each("change_message_visibility_batch", messages, VisibilityTimeout=ceil(wait_s))

    def describe(self) -> str:
        """The queue, and how many messages wait in it."""
        answer = self._ask("get_queue_attributes", AttributeNames=["ApproximateNumberOfMessages"])
        return f"{self.url}: about {answer['Attributes']['ApproximateNumberOfMessages']} messages wait"

    def _ask_of_each(self, what: str, messages: Sequence[Message], **arguments: Any) -> None:
        for first in range(0, len(messages), AT_ONCE):
            some = enumerate(messages[first : first + AT_ONCE])
            entries = [{"Id": str(n), "ReceiptHandle": message.receipt} | arguments for n, message in some]
            self._ask(what, Entries=entries)

    def _ask(self, what: str, **arguments: Any) -> Any:
        try:
            if self._client is None:
                self._client = boto3.client("sqs", config=patience())
            return getattr(self._client, what)(QueueUrl=self.url, **arguments)
        except (BotoCoreError, ClientError) as error:
            raise SourceUnavailable(
                f"{self.url}: the queue does not answer: {error}; check ASR_QUEUE_URL and the AWS_* variables"
            ) from error
