"""The documentation is complete and true: what the program has is in it, and what it shows is what the program does."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from docs import generate
from sensor.analysis.limits import LIMITS
from sensor.cli import vmsensor
from sensor.config import OPTIONS, build
from sensor.errors import FAILURES, INTERRUPTED, SensorError
from sensor.flowtable import FATES
from sensor.metrics import DIRECTION, FLOW, MEASUREMENTS
from sensor.native import ENDS, ROLES, STATES, TUNNELS
from tests.command import DEMO
from tests.command import vmsensor as vmsensor_run
from tests.conftest import ReadCapture
from tests.needs import PCAPS, ROOT, need_tool
from tests.servers import InfluxServer

DOCS = ROOT / "docs"
PAGES = [path for path in generate.PAGES if path.is_file()]
COMMANDS = dict(generate.leaves(vmsensor))
CODE = re.compile(r"`([^`\n]+)`")
ROW = re.compile(r"^\| (?P<first>(?:[^|\\\n]|\\.)+?) \| (?P<second>(?:[^|\\\n]|\\.)*?) \|", re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def text_of(name: str) -> str:
    """A page, by its path below the project's root."""
    return (ROOT / name).read_text(encoding="utf-8")


def generated(name: str, part: str) -> str:
    """A generated part of a page, as it stands there."""
    (found,) = [match.group() for match in generate.PART.finditer(text_of(name)) if match["name"] == part]
    return found


def section(name: str, heading: str) -> str:
    """What stands on a page beneath a heading, up to the next heading of any level."""
    return re.split(r"^#+ ", text_of(name).split(f"# {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def named_in_rows(table: str) -> set[str]:
    """Everything that stands as code in the first column of tables."""
    return {name for row in ROW.finditer(table) for name in CODE.findall(row["first"])}


def shell_lines() -> Iterator[tuple[str, str]]:
    """Commands in the pages' code: each line of an indented block that begins with a program of ours."""
    for page in PAGES:
        for line in page.read_text(encoding="utf-8").splitlines():
            if line.startswith(("    vmsensor ", "    make ")):
                yield page.name, line.strip()


# --- generated parts and links ---------------------------------------------------------------------------------------


def test_generated_parts_are_up_to_date() -> None:
    """`make docs` would change nothing."""
    assert [path.name for path, _ in generate.outdated()] == []


def test_every_generated_part_is_used() -> None:
    """What can be generated stands on exactly one page."""
    used = [match["name"] for page in PAGES for match in generate.PART.finditer(page.read_text(encoding="utf-8"))]
    assert sorted(used) == sorted(generate.PARTS)


def test_check_tells_an_outdated_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--check names a page that is out of date, ends with 1 and leaves it alone; without it the page is written."""
    page = tmp_path / "page.md"
    page.write_text("<!-- generated: exit-statuses -->\nold\n<!-- end: exit-statuses -->\n")
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    monkeypatch.setattr(generate, "PAGES", (page,))
    assert generate.main(["--check"]) == 1
    assert "page.md: out of date" in capsys.readouterr().out
    assert "old" in page.read_text()
    assert generate.main([]) == 0
    assert "| 130 |" in page.read_text()
    assert generate.main(["--check"]) == 0


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file of the project, and a heading in it where it names one."""
    for target in (match["target"] for match in LINK.finditer(page.read_text(encoding="utf-8"))):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.is_file(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(linked), f"{page.name} links to {target}"


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as forges make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_architecture_names_every_c_file() -> None:
    """The README's architecture has a place for each file of the data plane, and for none that is gone."""
    rooms = re.findall(r"^    native/(\w+(?:, \w+)*)  ", text_of("README.md"), re.MULTILINE)
    files = {path.stem for path in (ROOT / "native").glob("*.c")}
    assert {name for room in rooms for name in room.split(", ")} == files


def test_every_page_is_linked_from_the_readme() -> None:
    """A reader finds every page from the README."""
    linked = {match["target"].partition("#")[0] for match in LINK.finditer(text_of("README.md"))}
    assert {f"docs/{path.name}" for path in DOCS.glob("*.md")} <= linked


# --- commands and options --------------------------------------------------------------------------------------------


def test_every_command_is_documented() -> None:
    """Each command of the command line has a row, and no row is of a command that is gone."""
    rows = named_in_rows(generated("docs/options.md", "commands"))
    assert {" ".join(word for word in row.split()[1:] if word.islower()) for row in rows} == set(COMMANDS)


def test_every_option_of_every_command_is_documented() -> None:
    """Each switch that a command takes is on the page of options."""
    switches = {
        switch
        for command in (vmsensor, *COMMANDS.values())
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for switch in parameter.opts
    }
    documented = {word for code in CODE.findall(text_of("docs/options.md")) for word in code.split()}
    assert switches - documented == set()


def test_every_configuration_key_is_documented() -> None:
    """The second column of the table of options has each key beside its switch."""
    rows = {row["second"].strip("`"): row["first"] for row in ROW.finditer(generated("docs/options.md", "options"))}
    for option in OPTIONS:
        assert option.switch in rows[option.name]


def test_every_threshold_is_documented() -> None:
    """Each limit stands in one of the tables, with its default and its unit."""
    tables = generated("docs/life.md", "limits-life") + generated("docs/events.md", "limits-security")
    for limit in LIMITS:
        assert f"| `{limit.name}` | {limit.default:g} | {limit.unit} |" in tables


def test_every_environment_variable_is_documented() -> None:
    """The variables that options take their values from, and the token's."""
    variables = {option.env for option in OPTIONS if option.env} | {"INFLUXDB_V2_TOKEN"}
    for page in ("docs/options.md", "README.md"):
        assert {name for name in variables if name not in text_of(page)} == set()


def test_the_example_configuration_is_valid(tmp_path: Path) -> None:
    """The TOML file on the page of options is taken, and says what it seems to say."""
    (example,) = re.findall(r"```toml\n(.*?)```", text_of("docs/options.md"), re.DOTALL)
    token = tmp_path / "token"
    token.write_text("secret")
    token.chmod(0o600)
    file = tmp_path / "vmsensor.toml"
    file.write_text(example.replace("/etc/vmsensor/token", str(token)))
    settings = build("capture", {}, file)
    assert (settings.sensor_name, settings.buffer_size) == ("rack-4", 256 * 2**20)
    assert settings.sinks == (("influx", ""), ("table", ""))


def test_commands_in_the_pages_are_valid() -> None:
    """Every `vmsensor` line in the pages' code parses as on the command line; every `make` line has its target."""
    lines = list(shell_lines())
    assert len(lines) > 10
    for page, line in lines:
        words = shlex.split(line.split(" | ")[0], comments=True)
        if words[0] == "make":
            assert words[1] in make_targets(), f"{page}: {line}"
        else:
            try:
                name = " ".join(words[1:3]) if " ".join(words[1:3]) in COMMANDS else words[1]
                COMMANDS[name].make_context(name, words[1 + len(name.split()) :]).close()
            except (KeyError, click.UsageError) as error:
                pytest.fail(f"{page}: {line}: {error}")


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_says_what_the_page_says(command: str) -> None:
    """--help of each command ends well and begins with the sentence in the table of commands."""
    told = CliRunner().invoke(vmsensor, [*command.split(), "--help"])
    sentence = COMMANDS[command].get_short_help_str(200)
    assert told.exit_code == 0
    assert sentence in " ".join(told.output.split())
    assert sentence in generated("docs/options.md", "commands")


def make_targets() -> set[str]:
    """What `make help` lists."""
    done = subprocess.run(
        [need_tool("make"), "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return {line.split()[1] for line in done.stdout.splitlines()}


def test_every_make_target_is_documented() -> None:
    """The README's table has what `make help` lists, no more and no less."""
    assert named_in_rows(generated("README.md", "make-targets")) == {f"make {target}" for target in make_targets()}


def test_every_exit_status_is_documented() -> None:
    """Every failure's status is in the README, each under one meaning; nothing else is."""
    rows = {row["first"]: row["second"] for row in ROW.finditer(generated("README.md", "exit-statuses"))}
    del rows["status"], rows["---"]
    assert set(rows) == {"0", str(INTERRUPTED)} | {str(failure.exit_status) for failure in FAILURES}
    for failure in FAILURES:
        assert rows[str(failure.exit_status)] == failure.summary


def test_every_failure_is_listed() -> None:
    """No subclass of SensorError of the package is missing in FAILURES, but the interruption, which has its own row."""
    statuses = {
        failure.exit_status for failure in SensorError.__subclasses__() if failure.__module__.startswith("sensor")
    }
    assert statuses - {INTERRUPTED} <= {failure.exit_status for failure in FAILURES}


# --- numbers and fields ----------------------------------------------------------------------------------------------


def test_every_metric_of_a_flow_is_explained() -> None:
    """The tables of metrics have each row of metrics.py, with its meaning."""
    parts = {"metrics-of-a-direction": DIRECTION, "metrics-of-a-flow": FLOW}
    for part, metrics in parts.items():
        table = generated("docs/metrics.md", part)
        assert {"`" + metric.name + "`" for metric in metrics} == set(
            re.findall(r"^\| (`\w+`) \|", table, re.MULTILINE)
        )
        assert all(metric.help in table for metric in metrics)


@pytest.mark.parametrize("measurement", sorted(MEASUREMENTS))
def test_every_tag_and_field_of_a_measurement_is_documented(measurement: str) -> None:
    """The section of a measurement names its tags and its fields, and nothing that is not written."""
    tags, metrics = MEASUREMENTS[measurement]
    fields = named_in_rows(generated("docs/store.md", measurement))
    assert fields == {metric.name for metric in metrics}
    before_the_fields = section("docs/store.md", measurement).split("<!-- generated")[0]
    assert named_in_rows(before_the_fields) == set(tags)


def test_points_hold_what_is_documented(demo_points: list[dict[str, dict[str, object]]]) -> None:
    """Tags and fields of real points, and the types of the values, are those of the tables."""
    assert {point["measurement"] for point in demo_points} == set(MEASUREMENTS)
    types = {int: "integer", float: "float", str: "string"}
    for point in demo_points:
        tags, metrics = MEASUREMENTS[str(point["measurement"])]
        assert set(point["tags"]) == set(tags)
        assert set(point["fields"]) == {metric.name for metric in metrics}
        for metric in metrics:
            value = point["fields"][metric.name]
            assert value is None or types[type(value)] == generate.field_type(metric), metric.name


@pytest.fixture(scope="module")
def demo_points(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, object]]]:
    """Every point of the demonstration, and of a migration, which is an event, as --to json writes them."""
    path = tmp_path_factory.mktemp("points") / "points.json"
    points = []
    for name in ("demo.pcap", "behaviour/life-migration.pcap"):
        command = [sys.executable, "-m", "sensor", "read", str(PCAPS / name), "--to", f"json:{path}"]
        subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=True)
        points += [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return points


def test_flow_record_has_the_documented_fields(read_capture: ReadCapture) -> None:
    """Every line has every field of the page and no other; none that is never null is null."""
    page = text_of("docs/flow-record.md")
    never_null = {
        name for row in page.splitlines() if row.endswith("| never |") for name in CODE.findall(row.split("|")[1])
    }
    for capture in ("demo.pcap", "icmp.pcap", "other-protocols.pcap", "one-sided.pcap"):
        records = [json.loads(line) for line in read_capture(PCAPS / capture).stdout.splitlines()]
        assert records
        for record in records:
            assert set(record) == named_in_rows(page)
            assert {name for name in never_null if record[name] is None} == set()


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("docs/decoding.md", FATES),
        ("docs/decoding.md", TUNNELS[1:]),
        ("docs/flow-record.md", (*TUNNELS[1:], *ROLES, *STATES, *ENDS[1:])),
    ],
    ids=["fates", "tunnels", "words of a record"],
)
def test_every_word_that_users_see_is_documented(page: str, words: tuple[str, ...]) -> None:
    """Fates, tunnels, roles, states and ends come from C enums; each member is explained."""
    assert {word for word in words if f"`{word}`" not in text_of(page)} == set()


# --- queries in the pages


def test_traffic_that_two_sensors_saw_can_be_counted_once(influxdb: InfluxServer, tmp_path: Path) -> None:
    """The query of the page on scale, as it stands, over the same capture by two sensors, gives what one has seen."""
    database = influxdb.create_database("twice")
    to = ("--to", "influx", "--influx-url", influxdb.url, "--influx-bucket", database)
    for name in ("left", "right"):
        done = vmsensor_run("read", DEMO, "--sensor-name", name, "--store", tmp_path / name, *to)
        assert done.returncode == 0, done.stderr
    query = text_of("docs/scale.md").partition("<!-- tested: once -->")[2].partition("\n\nWhat is in")[0]
    (once,) = influxdb.query(" ".join(query.split()), database)
    (twice,) = influxdb.query("SELECT sum(bytes) FROM vm_traffic", database)
    (own,) = influxdb.query("SELECT sum(ip_bytes) FROM sensor WHERE sensor = 'left'", database)
    assert once["sum"] == own["sum"]
    assert twice["sum"] == 2 * int(str(own["sum"]))
