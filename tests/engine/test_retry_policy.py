"""Calls of pyspark's Connect client to the embedded engine that are made again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from pyspark.errors import PySparkException
from pyspark.sql.connect.client import DefaultChannelBuilder, SparkConnectClient
from pyspark.sql.connect.proto import base_pb2

from gio_spark.engine.embedded import retry_policy

pytestmark = pytest.mark.embedded


@pytest.fixture
def client_of_server():
    """Client of a server that answers with the bytes in a list, one after the other."""
    server = grpc.server(ThreadPoolExecutor(1))
    responses: list[bytes] = []
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: responses.pop(0))
    server.add_generic_rpc_handlers(
        [
            grpc.method_handlers_generic_handler(
                "spark.connect.SparkConnectService", {"AnalyzePlan": handler}
            )
        ]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    client = SparkConnectClient(DefaultChannelBuilder(f"sc://127.0.0.1:{port}"))
    client.set_retry_policies([retry_policy()])
    yield client, responses
    client._channel.close()
    server.stop(None)


def test_a_response_that_cannot_be_parsed_is_asked_for_again(client_of_server):
    client, responses = client_of_server
    response = base_pb2.AnalyzePlanResponse(session_id=client._session_id)
    response.spark_version.version = "7.0"
    responses += [b"\xff\xff", response.SerializeToString()]
    assert client._analyze(method="spark_version").spark_version == "7.0"
    assert responses == []


def test_responses_that_can_never_be_parsed_are_an_error_in_the_end(client_of_server):
    client, responses = client_of_server
    responses += [b"\xff\xff"] * 20
    with pytest.raises(PySparkException, match="deserializing"):
        client._analyze(method="spark_version")
    assert len(responses) == 15  # the first call and four more
