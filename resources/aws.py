"""Clients of AWS, and of whatever speaks its protocols, with an end to how long they keep anybody waiting."""

import os
from typing import Any

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from dagster_aws.s3 import S3Resource

TRIES, ANSWER_S = 3, 10.0
_OPTIONS = {
    *("region_name", "endpoint_url", "use_ssl", "verify"),
    *("aws_access_key_id", "aws_secret_access_key", "aws_session_token"),
}


def patience(tries: int = TRIES, **more: Any) -> Config:
    """Dagster ends a tick of a sensor after 60 s: who hangs has to be given up before.

    After the first time it is tried ``tries`` times more.
    """
    return Config(
        connect_timeout=5, read_timeout=ANSWER_S, retries={"mode": "standard", "max_attempts": tries}, **more
    )


class S3(S3Resource):
    """dagster-aws's resource, with that patience."""

    max_attempts: int = TRIES

    @property
    def _has_endpoint(self) -> bool:
        return bool(
            self.endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3", os.environ.get("AWS_ENDPOINT_URL"))
        )

    def get_client(self) -> Any:
        """A client of boto3. Without being told, it would sign links in a way that newer regions refuse."""
        config = patience(
            self.max_attempts,
            signature_version=UNSIGNED if self.use_unsigned_session else "s3v4",
            # Links lead to the region's own host, which is the only one that newer regions have.
            s3={"addressing_style": "auto" if self._has_endpoint else "virtual"},
        )
        session = boto3.session.Session(profile_name=self.profile_name)
        return session.client("s3", config=config, **self.model_dump(include=_OPTIONS))
