"""From the text of a machine file to a Machine: the one place where machines are validated."""

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from typing import get_args

from supernode.errors import MachineFileError, near_matches
from supernode.machine.chip import MATRIX_DTYPES, Chip, HostLink, Memory, Overhead
from supernode.machine.machine import Level, Machine, Topology
from supernode.machine.parse_fit import Like, kernels, link_fit, no_other
from supernode.machine.parse_number import Sources, number_of, optional, sourced
from supernode.machine.sourced import Alternative, Source, Sourced
from supernode.machine.table import Table


def parse_machine(text: str, file: str, like: Like = no_other) -> Machine:
    """The machine that the TOML `text` describes; `file` names it in errors.

    `like` loads the machines that the file names where it carries measurements over.

    Raises MachineFileError, which names the file, the dotted key and what is wrong there.
    """
    try:
        entries = tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, or an integer of thousands of digits
        raise MachineFileError(f"not valid TOML: {error}", where=file) from error
    top = Table(file=file, key="", entries=entries)
    top.allow(_names(Machine))
    sources = _sources(top.table("sources"))
    chips = top.count("chips")
    machine = Machine(
        name=top.text("name"),
        title=top.text("title"),
        vendor=top.text("vendor"),
        chip=_chip(top.table("chip"), sources, like),
        chips=chips,
        levels=_levels(top, chips, sources, like),
        power_w=sourced(top, "power_w", sources),
        chip_unit=top.text("chip_unit", "chip"),
        scale_out_bytes_per_s=optional(top, "scale_out_bytes_per_s", sources),
        scale_out_latency_s=optional(top, "scale_out_latency_s", sources),
        scale_out_efficiency=optional(top, "scale_out_efficiency", sources, most=1),
        scale_out_transport=link_fit(top, "scale_out_transport", sources, like),
        host_step_s=optional(top, "host_step_s", sources),
        dies=_level(top.table("dies"), sources, like) if "dies" in entries else None,
        notes=top.text("notes", ""),
        alternatives=tuple(
            _alternative(table, sources) for table in top.tables("alternatives", optional=True)
        ),
        sources=tuple(sources.values()),
    )
    _check_alternatives(top, machine)
    return machine


def _names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


def _sources(table: Table) -> Sources:
    return {name: _source(name, table.table(name)) for name in table.entries}


def _source(name: str, table: Table) -> Source:
    table.allow(("title", "url"))
    return Source(name=name, title=table.text("title"), url=table.text("url", ""))


def _chip(table: Table, sources: Sources, like: Like) -> Chip:
    table.allow(_names(Chip))
    peaks = _peaks(table.table("peak_flops_per_s"), sources)
    if not peaks:
        known = ", ".join(MATRIX_DTYPES)
        raise table.error("peak_flops_per_s", f"expected one or more of {known}, got none")
    return Chip(
        name=table.text("name"),
        peak_flops_per_s=peaks,
        vector_flops_per_s=sourced(table, "vector_flops_per_s", sources),
        matmul_efficiency=sourced(table, "matmul_efficiency", sources, most=1),
        memory=_memory(table.table("memory"), sources),
        launch_overhead_s=sourced(table, "launch_overhead_s", sources, zero=True),
        power_w=sourced(table, "power_w", sources),
        idle_power_fraction=sourced(table, "idle_power_fraction", sources, zero=True, most=1),
        cores=optional(table, "cores", sources),
        kernels=dict(kernels(table, sources, like)),
        fuses=table.flag("fuses"),
        overlaps=table.flag("overlaps", default=True),
        either_order=table.flag("either_order"),
        comm_share=optional(table, "comm_share", sources, most=1),
        host_launch_s=optional(table, "host_launch_s", sources),
        jitter=optional(table, "jitter", sources, most=1),
        host_link=_host_link(table.table("host_link"), sources)
        if "host_link" in table.entries
        else None,
        older_attention=_older_attention(table, sources),
    )


def _peaks(table: Table, sources: Sources) -> Mapping[str, Sourced]:
    table.allow(MATRIX_DTYPES)
    return {dtype: sourced(table, dtype, sources) for dtype in table.entries}


def _older_attention(table: Table, sources: Sources) -> Mapping[str, Sourced]:
    if "older_attention" not in table.entries:
        return {}
    older = table.table("older_attention")
    return {name: sourced(older, name, sources) for name in older.entries}


def _memory(table: Table, sources: Sources) -> Memory:
    table.allow(_names(Memory))
    return Memory(
        capacity_bytes=sourced(table, "capacity_bytes", sources),
        bandwidth_bytes_per_s=sourced(table, "bandwidth_bytes_per_s", sources),
        efficiency=sourced(table, "efficiency", sources, most=1),
        overhead=_overhead(table.table("overhead"), sources)
        if "overhead" in table.entries
        else None,
    )


def _overhead(table: Table, sources: Sources) -> Overhead:
    table.allow(_names(Overhead))
    return Overhead(
        context_bytes=sourced(table, "context_bytes", sources, zero=True),
        communicator_bytes=sourced(table, "communicator_bytes", sources, zero=True),
        workspace_bytes=sourced(table, "workspace_bytes", sources, zero=True),
        usable=optional(table, "usable", sources),
    )


def _host_link(table: Table, sources: Sources) -> HostLink:
    table.allow(_names(HostLink))
    return HostLink(
        bandwidth_bytes_per_s=sourced(table, "bandwidth_bytes_per_s", sources),
        latency_s=sourced(table, "latency_s", sources, zero=True),
        efficiency=sourced(table, "efficiency", sources, most=1),
    )


def _levels(top: Table, chips: int, sources: Sources, like: Like) -> tuple[Level, ...]:
    levels: list[Level] = []
    for table in top.tables("levels"):
        level = _level(table, sources, like)
        if any(level.name == inner.name for inner in levels):
            raise table.error("name", f"there are two levels {level.name!r}")
        if levels and level.chips <= levels[-1].chips:
            raise table.error(
                "chips",
                f"expected more than the {levels[-1].chips} of the level before, got {level.chips}",
                fix="list the innermost level first",
            )
        if levels and level.chips % levels[-1].chips:
            raise table.error(
                "chips",
                f"{level.chips} chips are no whole number of {levels[-1].name}s of "
                f"{levels[-1].chips}",
            )
        levels.append(level)
    if levels[-1].chips != chips:
        raise top.error("chips", f"{chips}, but the last level holds {levels[-1].chips}")
    return tuple(levels)


def _level(table: Table, sources: Sources, like: Like) -> Level:
    table.allow(_names(Level))
    return Level(
        name=table.text("name"),
        chips=table.count("chips"),
        bandwidth_bytes_per_s=sourced(table, "bandwidth_bytes_per_s", sources),
        latency_s=sourced(table, "latency_s", sources, zero=True),
        efficiency=sourced(table, "efficiency", sources, most=1),
        topology=table.choice("topology", get_args(Topology)),
        links=table.count("links"),
        same_links=table.flag("same_links"),
        transport=link_fit(table, "transport", sources, like),
        experts=link_fit(table, "experts", sources, like),
        one_shot=link_fit(table, "one_shot", sources, like),
        access=link_fit(table, "access", sources, like),
    )


def _alternative(table: Table, sources: Sources) -> Alternative:
    table.allow(("key", *_names(Sourced)))
    return Alternative(key=table.text("key"), number=number_of(table, sources))


def _check_alternatives(top: Table, machine: Machine) -> None:
    known = dict(machine.numbers())
    for i, alternative in enumerate(machine.alternatives):
        if alternative.key not in known:
            raise top.error(
                f"alternatives[{i}].key",
                f"the machine has no number {alternative.key!r}",
                near_matches(alternative.key, known),
            )
