"""Configurations: what they default to, what they refuse, and how they say so."""

import re
from pathlib import Path
from typing import get_args

import pytest
from handmade import config
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mmu import units
from mmu.config import (
    MOST_MEMORY,
    MOST_VMS,
    Array,
    Backing,
    Cache,
    ConfigError,
    Costs,
    Mode,
    PagePolicy,
    Quantum,
    RunConfig,
    VmConfig,
    WalkCaches,
)
from mmu.errors import InputError
from mmu.processors import load_processor

SKYLAKE = load_processor("skylake-sp")
MIB = 1 << 20


def run(**fields):
    return RunConfig(**({"processor": SKYLAKE, "vms": [{"trace": "web.parquet"}]} | fields))


def refused(**fields):
    with pytest.raises(ConfigError) as caught:
        run(**fields)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, InputError)
    return str(caught.value)


def test_defaults_are_those_of_the_documentation():
    defaults = run()
    assert defaults.mode == "tagged"
    assert defaults.memory == 64 << 30
    assert defaults.reserve == 1 << 30
    assert defaults.quantum == Quantum(value=125_000, unit="cycles")
    assert defaults.costs == Costs(
        cycles_per_instruction=1, guest_fault=1000, nested_fault=5000, exit=1400, switch=2000
    )
    assert defaults.vms[0].memory == 4 << 30
    assert (defaults.vms[0].guest_pages, defaults.vms[0].nested_pages) == ("4k", "auto")
    assert defaults.backing == "start"
    assert defaults.nested_dirty


@pytest.mark.parametrize(
    ("host", "reserve"),
    [("64GiB", 1 << 30), ("1TiB", 16 << 30), ("5GiB", 80 * MIB), ("4100MiB", 64 * MIB)],
)
def test_the_reserve_is_a_64th_of_the_host_in_large_pages_and_at_least_64_mib(host, reserve):
    assert run(memory=host, vms=[{"trace": "x", "memory": "2MiB"}]).reserve == reserve


def test_a_quantum_of_time_becomes_cycles_of_the_processor():
    half = SKYLAKE.model_copy(update={"frequency_hz": 1_000_000})
    assert run(quantum="2ms").quantum == Quantum(value=5_000_000, unit="cycles")
    assert run(quantum="2ms", processor=half).quantum == Quantum(value=2000, unit="cycles")
    assert run(quantum="300accesses").quantum == Quantum(value=300, unit="accesses")
    assert run(quantum={"value": 7, "unit": "instructions"}).quantum.value == 7


@given(st.integers(1, 10**12), st.integers(1, 10**10))
def test_a_quantum_is_rounded_down_to_whole_cycles_and_refused_below_one(us, hertz):
    cycles = us * hertz // 10**6
    if cycles:
        assert Quantum.parse(f"{us}us", hertz) == Quantum(value=cycles, unit="cycles")
    else:
        with pytest.raises(InputError, match="cycles a second"):
            Quantum.parse(f"{us}us", hertz)


def test_machines_are_named_after_their_traces_each_by_a_name_of_its_own():
    traces = ["a/web.parquet", "b/web.parquet", "web", "db.lackey.xz", "v1.2.parquet", ".parquet"]
    named = run(vms=[{"trace": trace} for trace in traces])
    assert [vm.name for vm in named.vms] == ["web", "web-2", "web-3", "db", "v1.2", ".parquet"]


def test_a_name_that_was_given_is_kept_and_avoided_by_the_others():
    vms = [{"trace": "web.parquet"}, {"trace": "x", "name": "web"}, {"trace": "root.parquet"}]
    named = run(vms=vms, root={"trace": "y"})
    assert [vm.name for vm in named.machines] == ["root", "web-2", "web", "root-2"]


def test_names_of_rows_that_every_result_has_are_not_given_to_machines():
    traces = [{"trace": "total.parquet"}, VmConfig(trace="hypervisor.parquet")]
    assert [vm.name for vm in run(vms=traces).vms] == ["total-vm", "hypervisor-vm"]
    assert "vms.0.name: found 'total'; accepted:" in refused(vms=[{"trace": "x", "name": "total"}])


def test_the_expanded_configuration_has_every_field_and_makes_the_same_run_again():
    expanded = config(exits_per_second=5, root={"trace": "r"}, seed=3).expanded()
    assert set(expanded) == set(RunConfig.model_fields)
    assert expanded["quantum"] == {"value": 125_000, "unit": "cycles"}
    assert expanded["processor"]["l2"][0]["ways"] == 12
    assert RunConfig(**expanded).expanded() == expanded


def test_a_path_may_be_a_path_object():
    assert run(vms=[{"trace": Path("a") / "b.parquet"}]).vms[0].trace == "a/b.parquet"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mode": "taged"}, r"mode: found 'taged'; accepted: tagged \| purge .*mean 'tagged'"),
        ({"mode": 3}, "mode: found 3; accepted: tagged"),
        ({"wormup": 3}, r"wormup: no such field, found 'wormup'; accepted: .*mean 'warm_up'"),
        ({"quantum": "-5us"}, "quantum: found '-5us'; accepted: a number above 0"),
        ({"quantum": "0.0001us"}, "quantum: found '0.0001us'; accepted: 1 to 2.62 cycles"),
        ({"quantum": 50}, "quantum: found 50; accepted: a number above 0 with us"),
        ({"quantum": None}, "quantum: found None"),
        ({"quantum": {"value": 0, "unit": "cycles"}}, "quantum.value: found 0; accepted: a whole"),
        ({"quantum": {"value": 1, "unit": "us"}}, "quantum.unit: found 'us'; accepted: accesses"),
        ({"exits_per_second": -1}, "exits_per_second: found -1; accepted: a whole number from 0"),
        ({"exits_per_second": 2**62}, r"exits_per_second: found \d+; .* from 0 to 2\^62 - 1"),
        ({"exits_per_second": 1_785_715}, "found 1785715; accepted: 0 to 1785714, as an exit"),
        ({"exit_code_pages": 5000}, "exit_code_pages: found 5000; accepted: .* from 0 to 4096"),
        ({"warm_up": 1.5}, "warm_up: found 1.5; accepted: a whole number"),
        ({"warm_up": True}, "warm_up: found True"),
        ({"repeat": 0}, "repeat: found 0; accepted: a whole number from 1"),
        ({"host_fragmentation": 1.01}, "host_fragmentation: found 1.01; accepted: a number from 0"),
        ({"host_fragmentation": float("nan")}, "host_fragmentation: found nan"),
        ({"host_fragmentation": False}, "host_fragmentation: found False"),
        ({"backing": "first"}, "backing: found 'first'; .*mean 'first-touch'"),
        ({"nested_dirty": 1}, r"nested_dirty: found 1; accepted: true \| false"),
        ({"memory": "3MiB"}, "memory: found '3MiB'; .*in steps of 2MiB; nearest: 2MiB or 4MiB"),
        ({"memory": 0}, "memory: found 0; accepted: 2MiB to 16TiB"),
        ({"memory": MOST_MEMORY + (2 << 20)}, r"memory: found \d+; accepted: 2MiB to 16TiB"),
        ({"memory": "4GiB"}, "vms.0.memory: found 4GiB for 'web'; accepted: up to 4032MiB"),
        ({"memory": "64MiB"}, "reserve: found 64MiB of 64MiB host memory; accepted: less"),
        ({"costs": {"exits": 1}}, "costs.exits: no such field, .*mean 'exit'"),
        ({"costs": {"exit": -1}}, "costs.exit: found -1; accepted: a whole number from 0"),
        ({"costs": 5}, "costs: found 5; accepted: a table"),
        ({"vms": 5}, "vms: found 5; accepted: a list of virtual machines"),
        ({"vms": [5]}, "vms.0: found 5; accepted: a table with trace, name, memory"),
        ({"vms": []}, f"vms: found 0 virtual machines; accepted: 1 to {MOST_VMS}"),
        ({"vms": [{"trace": "x"}] * 1001}, "vms: found 1001 virtual machines"),
        ({"vms": [{}]}, "vms.0.trace: missing"),
        ({"vms": [{"trace": 5}]}, "vms.0.trace: found 5; accepted: text"),
        ({"vms": [{"trace": "x", "memry": 1}]}, "vms.0.memry: no such field, .*mean 'memory'"),
        ({"vms": [{"trace": "x", "guest_pages": "1g"}]}, r"guest_pages: found '1g'.* \| auto"),
        ({"vms": [{"trace": "x", "fragmentation": 2}]}, "vms.0.fragmentation: found 2"),
        ({"vms": [{"trace": "x", "aslr": -2}]}, "vms.0.aslr: found -2"),
        ({"vms": [{"trace": "x", "name": "a\nb"}]}, r"vms.0.name: found 'a\\nb'; accepted: up"),
        ({"root": {"trace": "x", "memory": 5}}, "root.memory: found 5; accepted: 2MiB to 16TiB"),
        ({"processor": {"name": "mine"}}, "processor.frequency_hz: missing"),
        ({"processor": "skylake-sp"}, "processor: found 'skylake-sp'; accepted: a table of fields"),
    ],
)  # fmt: skip
def test_what_cannot_run_is_refused_with_where_found_and_accepted(fields, message):
    text = refused(**fields)
    assert re.search(message, text), text


def test_two_machines_of_one_name_are_refused():
    same = [{"trace": "x", "name": "a"}, {"trace": "y", "name": "a"}]
    assert "vms.0.name: found 'a'; accepted: a name of its own" in refused(vms=same)
    root = {"trace": "z", "name": "web"}
    assert "found 'web'" in refused(root=root, vms=[{"trace": "x", "name": "web"}])


def test_more_guests_than_the_host_backs_are_refused_unless_backed_at_first_touch():
    vms = [{"trace": "x", "memory": "3GiB"}] * 2
    text = refused(vms=vms, memory="4GiB")
    assert text.startswith("memory: found 4GiB, of which 4032MiB are left by the reserve for 6GiB")
    assert run(vms=vms, memory="4GiB", backing="first-touch").memory == 4 << 30


def test_exits_that_take_all_time_are_refused_where_there_is_a_hypervisor():
    assert run(exits_per_second=1_785_714).exits_per_second == 1_785_714
    assert run(exits_per_second=10**9, mode="native").exits_per_second == 10**9
    assert run(exits_per_second=10**9, costs={"exit": 0}).exits_per_second == 10**9


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        run().seed = 5


def test_whole_numbers_may_be_written_as_floats_as_toml_does():
    assert Cache(entries=64.0, ways=4).sets == 16


@given(st.integers(1, 4096), st.integers(1, 4096))
def test_ways_divide_the_entries_or_the_nearest_that_do_are_named(entries, ways):
    if entries % ways == 0:
        assert Cache(entries=entries, ways=ways).sets * ways == entries
        return
    with pytest.raises(ConfigError) as caught:
        Cache(entries=entries, ways=ways)
    assert caught.value.path == ("ways",)
    near, totals = caught.value.text.rsplit("nearest: ways=", 1)[1].split(", or entries=")
    for fit in near.split(" or "):
        assert entries % int(fit) == 0
    for fit in totals.split(" or "):
        assert int(fit) % ways == 0
        assert abs(int(fit) - entries) < ways


def test_an_index_is_linear_or_folds_a_power_of_two_sets():
    assert Cache(entries=64, ways=4).fold == 63
    assert Cache(entries=64, ways=4, index="XOR-7").fold == 7
    with pytest.raises(
        ConfigError, match=r"index: found 'xor-7' with 192 sets \(1536 entries / 8 "
    ):
        Cache(entries=1536, ways=8, index="xor-7")
    for index in ("xor-0", "xor-45", "xor", "liner", 7):
        with pytest.raises(ConfigError, match="accepted: linear, or xor-1 to xor-44"):
            Cache(entries=64, ways=4, index=index)


def test_an_array_holds_each_page_size_once_smallest_first():
    assert Array(entries=4, ways=4, sizes=["2M", "4k"]).sizes == ("4k", "2m")
    for sizes in ([], ["4k", "4K"]):
        with pytest.raises(
            ConfigError, match=r"sizes: found .*; accepted: one or more of 4k, 2m, 1g"
        ):
            Array(entries=4, ways=4, sizes=sizes)


def test_walk_caches_may_be_absent():
    assert WalkCaches().pde is None


def test_words_of_the_command_line_are_those_of_the_configuration():
    assert get_args(Mode) == units.MODES
    assert get_args(Backing) == units.BACKINGS
    assert get_args(get_args(PagePolicy)[0]) == units.PAGES
