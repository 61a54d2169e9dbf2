"""Names of services by server port, few enough to be a tag."""

from __future__ import annotations

_TCP_AND_UDP = {
    20: "ftp-data", 21: "ftp", 22: "ssh", 23: "telnet", 25: "smtp", 53: "dns", 67: "dhcp", 68: "dhcp", 69: "tftp",
    80: "http", 88: "kerberos", 110: "pop3", 111: "rpcbind", 123: "ntp", 135: "msrpc", 137: "netbios", 138: "netbios",
    139: "netbios", 143: "imap", 161: "snmp", 162: "snmp-trap", 179: "bgp", 389: "ldap", 443: "https", 445: "smb",
    465: "smtps", 500: "ipsec", 514: "syslog", 546: "dhcp6", 547: "dhcp6", 587: "submission", 636: "ldaps",
    853: "dns-tls", 873: "rsync", 993: "imaps", 995: "pop3s", 1433: "mssql", 1521: "oracle", 1812: "radius",
    1883: "mqtt", 2049: "nfs", 2181: "zookeeper", 2379: "etcd", 2380: "etcd", 3260: "iscsi", 3306: "mysql",
    3389: "rdp", 4222: "nats", 4500: "ipsec", 4789: "vxlan", 5060: "sip", 5201: "iperf3", 5353: "mdns",
    5432: "postgresql", 5671: "amqps", 5672: "amqp", 5900: "vnc", 6081: "geneve", 6379: "redis", 6443: "kubernetes",
    8080: "http-alt", 8086: "influxdb", 8443: "https-alt", 8472: "vxlan", 9042: "cassandra", 9092: "kafka",
    9200: "elasticsearch", 9300: "elasticsearch", 10250: "kubelet", 11211: "memcached", 27017: "mongodb",
}  # fmt: skip

PORTS_OF: dict[str, list[int]] = {}
"""The ports of each name."""
for _port, _name in _TCP_AND_UDP.items():
    PORTS_OF.setdefault(_name, []).append(_port)

EPHEMERAL_LOWEST = 32768
"""Ports from here on are a client's (Linux ip_local_port_range): never a service of their own."""


def service_name(protocol: str, port: int | None) -> str:
    """The tag ``service``: a name, the port's number, or for what has no port the protocol."""
    if port is None:
        return protocol
    named = _TCP_AND_UDP.get(port)
    if named:
        return named
    return str(port) if port < EPHEMERAL_LOWEST else "dynamic"
