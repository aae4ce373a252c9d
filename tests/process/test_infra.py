"""The files in infra/. No Docker engine is needed, so Compose itself is not tried here."""

import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.clickhouse import ClickHouseServer

INFRA = Path(__file__).parents[2] / "infra"
CONFIG_D = INFRA / "clickhouse" / "config.d"
USERS_D = INFRA / "clickhouse" / "users.d"
XML_FILES = sorted(INFRA.rglob("*.xml"))

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


@pytest.mark.parametrize("path", XML_FILES, ids=lambda path: path.name)
def test_xml_is_a_configuration(path: Path) -> None:
    """A server with one malformed file beside its configuration does not start at all."""
    assert ET.parse(path).getroot().tag == "clickhouse"  # noqa: S314 - our own file


def test_ports_are_bound_to_loopback_only(compose: dict[str, Any]) -> None:
    """A bare "9000:9000" would offer the database to the whole internet, past the firewall."""
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert not any("network_mode" in service for service in compose["services"].values())


def test_no_file_holds_a_password(compose: dict[str, Any]) -> None:
    """Passwords come from the environment, and Compose stops if there is none."""
    required = r"\$\{CLICKHOUSE_PASSWORD:\?[^}]+\}"
    services = compose["services"]
    assert re.fullmatch(required, services["clickhouse"]["environment"]["CLICKHOUSE_PASSWORD"])
    assert re.fullmatch(
        rf"clickhouse://recorder:{required}@clickhouse:9000/mexc_data",
        services["recorder"]["environment"]["MEXC_TRIO_STORE"],
    )
    for path in XML_FILES:
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
    rows = server.execute("SELECT name FROM system.tables WHERE database = 'system'")
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
