"""Grafana dashboards as code: one file a dashboard, made into the JSON that `sensor/grafana/` ships.

`make dashboards` writes the JSON; it takes grafana-foundation-sdk, which the sensor itself does not need.
"""
