"""The files in infra/. No Docker engine is needed, so Compose itself is not tried here."""

import configparser
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import trio
import yaml

from mexc_trio.clickhouse.insert_counters import InsertCounters
from mexc_trio.exchange.counters import ClockSample, LineCounters
from mexc_trio.metrics.page import render
from mexc_trio.metrics.snapshot import Snapshot
from mexc_trio.rows import CHANNELS
from tools.clickhouse import ClickHouseServer

INFRA = Path(__file__).parents[2] / "infra"
CONFIG_D = INFRA / "clickhouse" / "config.d"
XML_FILES = sorted((INFRA / "clickhouse").rglob("*.xml"))
CLUSTER = INFRA / "cluster"
CLUSTER_FILES = sorted(CLUSTER.glob("*.xml"))

# As the image has them: log tables that are on unless our files turn them off.
IMAGE_CONFIG = """\
<clickhouse>
    <part_log>
        <database>system</database>
        <table>part_log</table>
        <flush_interval_milliseconds>100</flush_interval_milliseconds>
    </part_log>
    <query_log>
        <database>system</database>
        <table>query_log</table>
        <flush_interval_milliseconds>100</flush_interval_milliseconds>
    </query_log>
</clickhouse>
"""
IMAGE_USERS = """\
<clickhouse>
    <profiles><default><log_queries>1</log_queries></default></profiles>
</clickhouse>
"""


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """Load the compose file."""
    loaded = yaml.safe_load((INFRA / "compose.yaml").read_text())
    assert isinstance(loaded, dict)
    return loaded


@pytest.mark.parametrize("path", [*XML_FILES, *CLUSTER_FILES], ids=lambda path: path.name)
def test_xml_is_a_configuration(path: Path) -> None:
    """A server with one malformed file beside its configuration does not start at all."""
    assert ET.parse(path).getroot().tag == "clickhouse"  # noqa: S314 - our own file


def test_ports_are_bound_to_loopback_only(compose: dict[str, Any]) -> None:
    """A bare "9000:9000" would offer the database to the whole internet, past the firewall."""
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert not any("network_mode" in service for service in compose["services"].values())


def test_each_recorder_with_a_route_has_a_symbol_and_a_journal_of_its_own() -> None:
    """Two recorders in one state directory would be refused; a route must be chosen for each."""
    routes = yaml.safe_load((INFRA / "compose.routes.yaml").read_text())
    first, second = routes["services"].values()
    assert second["extends"] == {"file": "compose.yaml", "service": "recorder"}
    assert first["command"] != second["command"]
    assert ":?" in first["environment"]["MEXC_TRIO_ROUTE"]
    assert ":?" in second["environment"]["MEXC_TRIO_ROUTE"]
    assert second["volumes"] == ["recorder-eth-state:/state"]
    assert "recorder-eth-state" in routes["volumes"]


def test_no_file_holds_a_password(compose: dict[str, Any]) -> None:
    """Passwords come from the environment, and Compose stops if there is none."""
    required = r"\$\{CLICKHOUSE_PASSWORD:\?[^}]+\}"
    services = compose["services"]
    assert re.fullmatch(required, services["clickhouse"]["environment"]["CLICKHOUSE_PASSWORD"])
    assert re.fullmatch(
        rf"clickhouse://recorder:{required}@clickhouse:9000/mexc_data",
        services["recorder"]["environment"]["MEXC_TRIO_STORE"],
    )
    for path in (*XML_FILES, *CLUSTER_FILES):
        assert "password" not in path.read_text().lower()
    assert "PASSWORD" not in (INFRA / "Dockerfile").read_text()


def test_every_configuration_file_is_mounted_and_exists(compose: dict[str, Any]) -> None:
    """A file that is not mounted does nothing; a mount of no file makes Docker a directory."""
    mounted = {
        INFRA / volume.split(":")[0]
        for volume in compose["services"]["clickhouse"]["volumes"]
        if volume.startswith("./")
    }
    assert mounted == set(XML_FILES)


def test_state_and_data_survive_the_containers(compose: dict[str, Any]) -> None:
    """Rows and journal lie in named volumes, and what was recording records again."""
    for service in compose["services"].values():
        named = [volume for volume in service["volumes"] if not volume.startswith((".", "/"))]
        assert {volume.split(":")[0] for volume in named} <= set(compose["volumes"])
        assert named
        assert service["restart"] == "unless-stopped"
        assert service["stop_grace_period"] == "60s"


# Monitoring.


def tool(name: str) -> str:
    """Return a program that checks files; where it is missing, the test is skipped."""
    return shutil.which(name) or pytest.skip(f"there is no {name}")


def checked(*command: str | Path, cwd: Path = INFRA) -> str:
    """Run a program that finds nothing wrong; return what it says."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_prometheus_takes_configuration_and_alerts() -> None:
    """The scrape configuration is valid, and each alert fires when it should and only then."""
    promtool = tool("promtool")
    checked(promtool, "check", "config", "prometheus.yml", cwd=INFRA / "prometheus")
    checked(promtool, "test", "rules", "alerts_test.yml", cwd=INFRA / "prometheus")


def test_each_alert_is_tested_and_in_the_runbook() -> None:
    """Somebody who is woken up finds what it means and what to do."""
    groups = yaml.safe_load((INFRA / "prometheus" / "alerts.yml").read_text())["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"]}
    runbook = (INFRA / "RUNBOOK.md").read_text()
    assert set(re.findall(r"^## (\w+)$", runbook, re.MULTILINE)) == alerts
    tests = yaml.safe_load((INFRA / "prometheus" / "alerts_test.yml").read_text())["tests"]
    fired = {
        rule["alertname"]
        for test in tests
        for rule in test.get("alert_rule_test", [])
        if rule["exp_alerts"]
    }
    assert fired == alerts


def families() -> set[str]:
    """Return the names of all samples that a recorder's page can have."""
    snapshot = Snapshot(
        line_counters=[LineCounters()], inserts=InsertCounters(), store="", away=None, journal=0,
        disk_free=0, disk_bound=0,
    )  # fmt: skip
    snapshot.line_counters[0].clock = ClockSample(0.0, 0.0, 0.0)
    snapshot.last = dict.fromkeys(CHANNELS, 0.0)
    snapshot.delays = {channel: [0.0] for channel in CHANNELS}

    async def page() -> str:
        return (await render(snapshot, [])).decode()

    names = re.findall(r"^# TYPE (\w+) (\w+)$", trio.run(page), re.MULTILINE)
    parts = {"histogram": ("_bucket", "_sum", "_count")}
    return {f"{name}{suffix}" for name, kind in names for suffix in parts.get(kind, ("",))}


def test_alerts_and_dashboard_ask_for_metrics_that_there_are() -> None:
    """A metric that is misspelt there is an alert that never fires."""
    for path in ("prometheus/alerts.yml", "grafana/dashboards/mexc-trio.json"):
        used = set(re.findall(r"\b(?:mexc_trio|process)_\w+", (INFRA / path).read_text()))
        assert used <= families(), path
        assert len(used) > 10


def test_the_dashboard_is_provisioned(compose: dict[str, Any]) -> None:
    """What the compose file mounts is there, and the dashboard is one that Grafana can read."""
    for service in ("prometheus", "grafana"):
        for volume in compose["services"][service]["volumes"]:
            if volume.startswith("./"):
                assert (INFRA / volume.split(":")[0]).exists()
    dashboard = json.loads((INFRA / "grafana" / "dashboards" / "mexc-trio.json").read_text())
    variables = {one["name"] for one in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(dashboard["panels"])))
    assert {name for name in used if not name.startswith("__")} <= variables


@pytest.mark.parametrize(
    "path", sorted((INFRA / "systemd").glob("*@.*")), ids=lambda path: path.name
)
def test_units_are_valid_and_give_little_away(path: Path, tmp_path: Path) -> None:
    """Nothing is wrong with them to systemd, and hardly anything of the machine is exposed."""
    analyze = tool("systemd-analyze")
    for unit in path.parent.glob("*@.*"):
        text = unit.read_text()
        # What is not installed here.
        text = re.sub(r"/opt/mexc-trio/\S+", "/bin/true", text).replace(
            "User=mexc-trio", "User=root"
        )
        (tmp_path / unit.name).write_text(text)
    said = checked(analyze, "verify", tmp_path / path.name.replace("@", "@main"), cwd=tmp_path)
    assert said == ""
    if path.suffix == ".service":
        checked(analyze, "security", "--offline=true", "--threshold=30", path)


def test_the_recorders_unit_never_gives_up() -> None:
    """Whatever it ends with and however often: systemd's own limit is five quick exits."""
    path = INFRA / "systemd" / "mexc-trio@.service"
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.read(path)
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"
    assert unit["Service"]["Restart"] == "always"
    assert "RestartPreventExitStatus" not in unit["Service"]


def log_tables_after_some_work(server: ClickHouseServer) -> set[str]:
    """Do what would be logged, flush the logs, and return the log tables that there are."""
    server.execute("CREATE DATABASE IF NOT EXISTS work")
    server.execute(
        "CREATE TABLE work.merging (day Date, x Int32) ENGINE = MergeTree"
        " PARTITION BY day ORDER BY x"
    )
    server.execute("INSERT INTO work.merging SELECT toDate('2026-01-01'), number FROM numbers(10)")
    assert server.execute("SELECT count() FROM work.merging") == [(10,)]
    server.execute("SYSTEM FLUSH LOGS")
    # Newer servers have a view of such a name, which holds nothing.
    rows = server.execute(
        "SELECT name FROM system.tables WHERE database = 'system' AND engine LIKE '%MergeTree'"
    )
    return {name for (name,) in rows if name.endswith("_log")}


def only_known_settings(users: Path, known: set[str]) -> None:
    """Take settings that this server is too old for out of a users file: it would not start."""
    tree = ET.parse(users)  # noqa: S314 - our own file
    for profile in tree.iterfind("profiles/*"):
        for setting in list(profile):
            if setting.tag not in known:
                profile.remove(setting)
    tree.write(users)


def test_real_server_starts_with_the_files_and_keeps_no_logs(
    clickhouse_server: ClickHouseServer, tmp_path: Path
) -> None:
    """Merged into a real server's configuration they do what they say: no system log tables.

    The first half shows that without our files the same work does fill log tables.
    """
    known = {name for (name,) in clickhouse_server.execute("SELECT name FROM system.settings")}
    config_d, users_d = tmp_path / "config.d", tmp_path / "users.d"
    for directory, text in ((config_d, IMAGE_CONFIG), (users_d, IMAGE_USERS)):
        directory.mkdir()
        (directory / "image.xml").write_text(text)
    with ClickHouseServer(config_d=config_d, users_d=users_d) as server:
        assert {"part_log", "query_log"} <= log_tables_after_some_work(server)

    for path in XML_FILES:
        directory = config_d if path.parent == CONFIG_D else users_d
        # By the name under which it is mounted: files are merged in alphabetical order.
        shutil.copy(path, directory / f"mexc-{path.name}")
    only_known_settings(users_d / "mexc-profile.xml", known)
    with ClickHouseServer(config_d=config_d, users_d=users_d) as server:
        assert log_tables_after_some_work(server) == set()
        setting = "SELECT value FROM system.settings WHERE name = 'log_queries'"
        assert server.execute(setting) == [("0",)]
