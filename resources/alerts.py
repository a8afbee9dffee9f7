"""The door to whoever has to know: a web hook that takes JSON, as those of Slack and Mattermost do."""

from collections.abc import Mapping
from typing import Any

import requests
from dagster import ConfigurableResource
from pydantic import Field
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_exponential

from speech.errors import AsrError
from speech.types import Seconds

ANSWER_S: Seconds = 5.0
"""So long a hook may say nothing; with three tries and the waits between them a message then takes 18 s."""


class AlertRefused(AsrError):
    """The hook did not take a message. Says nothing of its address, which is a secret."""


class AlertHook(ConfigurableResource[Any]):
    """The hook; whoever knows its URL may write there."""

    url: str = Field(description="Takes POSTs of JSON with a text")

    @retry(
        retry=retry_if_exception_type(AlertRefused),
        stop=stop_after_attempt(3),
        wait=wait_exponential(max=2),
        reraise=True,
    )
    def post(self, message: Mapping[str, object]) -> None:
        """Deliver a message. Raises :class:`AlertRefused` after three tries."""
        try:
            # Its status alone: what else it says may go on for ever.
            with requests.post(
                self.url, json=message, timeout=ANSWER_S, allow_redirects=False, stream=True
            ) as answer:
                status = answer.status_code
        except requests.RequestException as error:
            raise AlertRefused(_refusal(type(error).__name__)) from None  # its text has the URL
        if status >= 300:
            raise AlertRefused(_refusal(f"HTTP {status}"))


def _refusal(why: str) -> str:
    return f"the hook in ASR_ALERT_URL took no alert ({why}): see whether it is there and the URL is right"
