"""``vmsensor grafana install``: data source, folder and dashboards over Grafana's HTTP API."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import urllib3

from sensor.errors import DeliveryError
from sensor.grafana import FOLDER, DataSource, dashboards

TIMEOUT = 10.0
_REASON = 200


class Grafana:
    """A Grafana and the right to change it: a service account's token, or user:password."""

    def __init__(self, url: str, token: str, ca_file: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._token = token
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        self._headers |= (
            dict(urllib3.util.make_headers(basic_auth=token))
            if ":" in token
            else {"Authorization": f"Bearer {token}"}
        )  # fmt: skip
        self._pool = urllib3.PoolManager(timeout=urllib3.Timeout(total=TIMEOUT), retries=False, ca_certs=ca_file)

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None, absent: int = 0) -> Any:
        """The JSON of the answer; None when its status is ``absent``. DeliveryError when Grafana does not do it."""
        content = None if body is None else json.dumps(body).encode()
        try:
            answer = self._pool.request(method, self.url + path, body=content, headers=self._headers, redirect=False)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            root: BaseException = error
            while (cause := root.__cause__ or root.__context__) is not None:
                root = cause
            reason = self._shown(getattr(root, "strerror", None) or str(root))
            raise DeliveryError(f"{self.url}: Grafana cannot be reached ({reason}); check --url") from None
        if absent and answer.status == absent:
            return None
        if not 200 <= answer.status < 300:
            raise DeliveryError(self._refusal(answer.status, answer.data, path))
        try:
            return json.loads(answer.data)
        except ValueError:
            raise DeliveryError(
                f"{self.url} is no Grafana: it answers with something else than JSON; check --url"
            ) from None

    def _refusal(self, status: int, data: bytes, path: str) -> str:
        try:
            reason = str(json.loads(data).get("message") or "")
        except (ValueError, AttributeError):
            reason = ""
        said = f"({status}{': ' if reason else ''}{self._shown(reason)})"
        if status in (401, 403):
            return f"{self.url}: Grafana refuses the token {said}; it has to be of a service account with role Admin"
        if status == 404:
            return f"{self.url} has no Grafana at this address {said}; check --url"
        return f"{self.url}: Grafana does not take {path} {said}"

    def _shown(self, text: str) -> str:
        for secret in (self._token, self._token.partition(":")[2]):
            text = text.replace(secret, "[token]") if secret else text
        return " ".join(text.split())[:_REASON]

    def close(self) -> None:
        """Drop the connection."""
        self._pool.clear()


def install(grafana: Grafana, sources: Sequence[DataSource]) -> Iterator[str]:
    """Put everything into Grafana, in place of what an earlier release put there; what was done, a line each."""
    for source in sources:
        wanted = source.to_json(source.settings.token)
        if grafana.ask("GET", f"/api/datasources/uid/{source.uid}", absent=404) is None:
            grafana.ask("POST", "/api/datasources", wanted)
        else:
            grafana.ask("PUT", f"/api/datasources/uid/{source.uid}", wanted)
        yield f"data source {source.uid}: {source.settings.url}, database {source.database}"
    if grafana.ask("GET", f"/api/folders/{FOLDER}", absent=404) is None:
        grafana.ask("POST", "/api/folders", {"uid": FOLDER, "title": FOLDER})
    for board in dashboards().values():
        content = {"dashboard": {**board, "id": None}, "folderUid": FOLDER, "overwrite": True, "message": "vmsensor"}
        answer = grafana.ask("POST", "/api/dashboards/db", content)
        yield f"{board['title']}: {grafana.url}{answer.get('url', '')}"
