"""InfluxDB 2: buckets, the mapping that lets InfluxQL find them, tasks; through influxdb-client."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from sensor.databases.downsampling import CONTINUOUS_QUERIES, long_name, task
from sensor.databases.duration import in_words
from sensor.databases.probe import try_v2_write
from sensor.sinks.refusals import Refused, explained
from sensor.sinks.servers import Http, InfluxSettings, reason_in


class Influx2Database:
    """A bucket of an organisation on InfluxDB 2."""

    queries = "InfluxQL, by way of a DBRP mapping"

    def __init__(self, settings: InfluxSettings) -> None:
        from influxdb_client.client.influxdb_client import InfluxDBClient

        self._settings = settings
        self._http = Http(settings)
        self._client = InfluxDBClient(
            settings.url, settings.token, org=settings.org, timeout=round(settings.timeout * 1000),
            verify_ssl=settings.verify, ssl_ca_cert=settings.ca_file,
        )  # fmt: skip

    def exists(self) -> bool:
        """Whether the bucket is there, as far as the token may see."""
        return self._bucket(self._settings.bucket) is not None

    def retention_ns(self) -> int | None:
        """Of the bucket."""
        bucket = self._bucket(self._settings.bucket)
        seconds = [rule.every_seconds for rule in (bucket.retention_rules or ())] if bucket else []
        return max(seconds, default=0) * 10**9 or None

    def try_write(self) -> None:
        """Lines without a point."""
        try_v2_write(self._http)

    def try_read(self) -> None:
        """The newest point of the sensor itself, by InfluxQL."""
        query = urlencode({"db": self._settings.bucket, "q": "SELECT last(received) FROM sensor"})
        self._http.demand("GET", f"/query?{query}")

    def create(self, retention_ns: int | None) -> list[str]:
        """The bucket, and its mapping."""
        bucket = self._create(self._settings.bucket, retention_ns)
        made = f"bucket {self._settings.bucket} made; points are kept {in_words(retention_ns)}"
        return [made, self._map(bucket)]

    def keep_for(self, retention_ns: int | None) -> list[str]:
        """Of the bucket."""
        from influxdb_client.domain.bucket_retention_rules import BucketRetentionRules

        def change() -> None:
            bucket = self._client.buckets_api().find_bucket_by_name(self._settings.bucket)
            bucket.retention_rules = [BucketRetentionRules(type="expire", every_seconds=(retention_ns or 0) // 10**9)]
            self._client.buckets_api().update_bucket(bucket=bucket)

        self._do(change)
        return [f"bucket {self._settings.bucket} keeps points {in_words(retention_ns)} from now on"]

    def downsample(self, retention_ns: int | None) -> list[str]:
        """A bucket for five-minute points, and tasks that fill it."""
        long = long_name(self._settings.bucket)
        bucket = self._bucket(long) or self._create(long, retention_ns)
        done = [f"bucket {long} keeps points of five minutes {in_words(retention_ns)}", self._map(bucket)]
        tasks = self._client.tasks_api()
        there = {found.name: found for found in self._do(lambda: tasks.find_tasks(org=self._settings.org))}
        for measurement, name in CONTINUOUS_QUERIES.items():
            flux = task(self._settings.bucket, long, measurement)
            if name in there:
                self._do(lambda name=name: tasks.delete_task(there[name].id))
            self._do(lambda flux=flux: tasks.create_task(task_create_request=_request(flux, self._settings.org)))
            done.append(f"task {name} fills it")
        return done

    def close(self) -> None:
        """Drop the connection."""
        self._http.close()
        self._client.close()

    def _bucket(self, name: str) -> Any:
        return self._do(lambda: self._client.buckets_api().find_bucket_by_name(name))

    def _create(self, name: str, retention_ns: int | None) -> Any:
        from influxdb_client.domain.bucket_retention_rules import BucketRetentionRules

        rules = BucketRetentionRules(type="expire", every_seconds=(retention_ns or 0) // 10**9)
        return self._do(
            lambda: self._client.buckets_api().create_bucket(
                bucket_name=name, retention_rules=rules, org=self._settings.org
            )
        )

    def _map(self, bucket: Any) -> str:
        """InfluxQL knows databases and retention policies: the bucket's name is made the database of that name."""
        from influxdb_client.domain.dbrp_create import DBRPCreate
        from influxdb_client.service.dbr_ps_service import DBRPsService

        mapping = DBRPCreate(
            database=bucket.name, retention_policy="autogen", default=True, org=self._settings.org, bucket_id=bucket.id
        )
        self._do(lambda: DBRPsService(self._client.api_client).post_dbrp(mapping))
        return f"InfluxQL finds it as database {bucket.name}"

    def _do(self, work: Any) -> Any:
        from influxdb_client.rest import ApiException

        with explained(self._settings):
            try:
                return work()
            except ApiException as error:
                reason = reason_in(error.headers or {}, error.body or error.reason)
                raise Refused(error.status or 0, reason) from None


def _request(flux: str, org: str) -> Any:
    from influxdb_client.domain.task_create_request import TaskCreateRequest

    return TaskCreateRequest(flux=flux, org=org, status="active")
