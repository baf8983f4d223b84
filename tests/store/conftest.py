"""The S3 server on loopback, for the tests of this folder."""

from tests.s3_server import bucket, server

__all__ = ["bucket", "server"]
