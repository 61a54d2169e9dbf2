"""What the series budget has no room for becomes ``other``: first of its two tenants, then of its scope alone.

Records are put down to other ends and grouped anew, so that every number of ``other`` is made of its records, as any
pair's is.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from sensor.analysis.groups import Ends, PairGroups, group_pairs, rows_of
from sensor.analysis.series import HEAVY_OCTETS, Mask, SeriesBudget, symmetric
from sensor.grouping import Groups, Ints, group
from sensor.identity.parties import OTHER, SCOPES
from sensor.identity.registry import EXTERNAL
from sensor.keys import Keys
from sensor.metrics import MEASUREMENTS
from sensor.native import NumpyArray
from sensor.window import Column, Labels, Table, present

OTHER_SERVICE = (OTHER, OTHER)
"""Protocol and service of what is put together; that of the flow table's overflow too."""


def within(budget: SeriesBudget, groups: PairGroups, records: NumpyArray) -> PairGroups:
    """The groups, of which those that the budget does not admit are put together."""
    octets = groups.sum(rows_of(records, "bytes"))
    refused = _refused(budget, groups, octets, np.arange(len(groups)), are_sums=False)
    if not refused.any():
        return groups
    budget.note_folded(int(refused.sum()), int(octets[refused].sum()))
    folded = group_pairs(_of_tenants(groups, refused))
    others = np.flatnonzero(folded.service == folded.ends.services.index(OTHER_SERVICE))
    refused = _refused(budget, folded, folded.sum(rows_of(records, "bytes")), others, are_sums=True)
    return group_pairs(_of_scopes(folded, refused)) if refused.any() else folded


def _refused(
    budget: SeriesBudget, groups: PairGroups, octets: Ints, asked: npt.NDArray[np.intp], *, are_sums: bool
) -> Mask:
    """Of the groups that are asked for, those without a series. Both directions of a pair have one, or neither has."""
    src, dst, service, ends = groups.src[asked], groups.dst[asked], groups.service[asked], groups.ends
    one = budget.keys("vm_traffic", Labels(src, ends.names), Labels(src, ends.tenants))
    other = budget.keys("vm_traffic", Labels(dst, ends.names), Labels(dst, ends.tenants))
    kind = budget.keys(
        "of",
        Labels(service, [protocol for protocol, _ in ends.services]),
        Labels(service, [name for _, name in ends.services]),
        Labels(groups.scope[asked], SCOPES),
    )
    refused = np.zeros(len(groups), np.bool_)
    refused[asked] = ~_admitted(budget, symmetric(symmetric(one, other), kind), octets[asked], are_sums)
    return refused


def _admitted(budget: SeriesBudget, keys: Keys, octets: Ints, are_sums: bool) -> Mask:
    """For rows of which some have the same key and get in together, each of them a series."""
    admitted = budget.knows(keys)
    if not admitted.all():
        asking = np.flatnonzero(~admitted)
        admitted[asking] = _admitted_now(budget, keys[asking], octets[asking], are_sums)
    return admitted


def _admitted_now(budget: SeriesBudget, keys: Keys, octets: Ints, are_sums: bool) -> Mask:
    same = group(keys)
    count = same.sum(np.ones(len(keys), np.bool_))
    # In the rows' own order, which does not depend on the keys: equals get in alike in every run.
    order = np.argsort(same.first)
    chosen = np.zeros(len(same), np.bool_)
    wanted = keys[same.first[order]]
    chosen[order] = budget.admit(wanted, same.sum(octets)[order], count[order], are_sums=are_sums)
    result: Mask = chosen[same.of_row]
    return result


def _of_tenants(groups: PairGroups, refused: Mask) -> Ends:
    """Refused pairs put down to ``other`` of their tenants; who is outside stays what it is."""
    ends = groups.ends
    distinct = list(dict.fromkeys(ends.tenants))
    place = {tenant: len(ends.names) + number for number, tenant in enumerate(distinct)}
    outside = ends.names.index(EXTERNAL) if EXTERNAL in ends.names else -1
    overflow = len(ends.names) - 1  # what the flow table had no place for is 'other' already
    others = [outside if tenant == EXTERNAL else place[tenant] for tenant in ends.tenants]
    others[overflow] = overflow
    services = ends.services if OTHER_SERVICE in ends.services else [*ends.services, OTHER_SERVICE]
    rows = _records_of(groups, refused)
    other_of = np.array(others, np.int64)
    client, server, service = ends.client.copy(), ends.server.copy(), ends.service.copy()
    client[rows], server[rows] = other_of[client[rows]], other_of[server[rows]]
    service[rows] = services.index(OTHER_SERVICE)
    names, tenants = [*ends.names, *[OTHER] * len(distinct)], [*ends.tenants, *distinct]
    return replace(ends, names=names, tenants=tenants, services=services, client=client, server=server, service=service)


def _of_scopes(groups: PairGroups, refused: Mask) -> Ends:
    """Refused pairs put down to the one ``other`` of their scope: the tags do not tell more."""
    ends, other = groups.ends, [OTHER] * len(SCOPES)
    rows = _records_of(groups, refused)
    client, server = ends.client.copy(), ends.server.copy()
    client[rows] = server[rows] = len(ends.names) + ends.scope[rows]
    return replace(ends, names=[*ends.names, *other], tenants=[*ends.tenants, *other], client=client, server=server)


def _records_of(groups: PairGroups, refused: Mask) -> npt.NDArray[np.intp]:
    """The records of refused groups; both directions of a record are refused, or none."""
    return np.flatnonzero(refused[groups.of_row[: len(groups.ends.client)]])


# ---- measurements whose points cannot be grouped anew


def dependency_within(budget: SeriesBudget, table: Table) -> Table:
    """The same of dependencies: counts are summed, and what cannot be made of the rows' values is null."""
    refused = _refused_edges(budget, table, np.arange(table.rows), are_sums=False)
    if not refused.any():
        return table
    budget.note_folded(int(refused.sum()))
    folded = _summed(budget, table, refused, ("client_vm", "server_vm", "service"), spared=EXTERNAL)
    others = np.flatnonzero(_is(folded.tags["service"], OTHER))
    refused = _refused_edges(budget, folded, others, are_sums=True)
    return _summed(budget, folded, refused, _EDGE[:-1]) if refused.any() else folded


_EDGE = ("client_vm", "server_vm", "client_tenant", "server_tenant", "service", "scope")


def _refused_edges(budget: SeriesBudget, table: Table, asked: npt.NDArray[np.intp], *, are_sums: bool) -> Mask:
    keys = budget.keys("dependency", *(table.tags[name].take(asked) for name in _EDGE))
    octets = (table.fields["c2s_bytes"].values + table.fields["s2c_bytes"].values)[asked]
    refused = np.zeros(table.rows, np.bool_)
    refused[asked] = ~_admitted(budget, keys, octets, are_sums)
    return refused


def _summed(
    budget: SeriesBudget, table: Table, refused: Mask, vague: tuple[str, ...], spared: str | None = None
) -> Table:
    """Refused rows with ``other`` in the vague tags, and those that are the same then put together."""
    tags = {name: _vague(tag, refused, spared) if name in vague else tag for name, tag in table.tags.items()}
    same = group(budget.keys(table.measurement, *tags.values()))
    # In the rows' own order, which does not depend on the keys.
    order = np.argsort(same.first)
    first = same.first[order]
    reduce = {metric.name: metric.reduce for metric in MEASUREMENTS[table.measurement][1]}
    fields = {name: _reduced(column, reduce[name], same, order) for name, column in table.fields.items()}
    return Table(table.measurement, len(first), {name: tag.take(first) for name, tag in tags.items()}, fields)


def _vague(tag: Labels, refused: Mask, spared: str | None) -> Labels:
    hidden = refused if spared is None else refused & ~_is(tag, spared)
    return Labels(np.where(hidden, len(tag.names), tag.codes), [*tag.names, OTHER])


def _is(tag: Labels, name: str) -> Mask:
    """The rows that have this name."""
    result: Mask = np.array([one == name for one in tag.names], np.bool_)[tag.codes]
    return result


def _reduced(column: Column, reduce: str, same: Groups, order: Ints) -> Column:
    """One value for each of the groups, which are wanted in this order."""
    here = present(column)
    if reduce == "sum":
        return Column(same.sum(np.where(here, column.values, 0))[order], same.sum(here)[order] > 0)
    first, alone = same.first[order], same.sum(np.ones(len(here), np.bool_))[order] == 1
    return Column(column.values[first], here[first] & alone)


def event_within(budget: SeriesBudget, table: Table) -> Table:
    """Events keep their points; those whose tenant has no series belong to the tenant ``other``."""
    keys = budget.keys("event", *(table.tags[name] for name in ("kind", "severity", "tenant")))
    unique, of_row = np.unique(keys, return_inverse=True)
    certain = np.full(len(unique), HEAVY_OCTETS)
    refused = ~budget.admit(unique, certain, np.ones(len(unique), np.int64))[of_row.reshape(-1)]
    if not refused.any():
        return table
    return replace(table, tags={**table.tags, "tenant": _vague(table.tags["tenant"], refused, None)})
