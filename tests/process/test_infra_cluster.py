"""The example of a cluster: its parts fit together, and what can be run of it does what it says."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from mexc_trio.clickhouse.tables import TableEngine, market_table
from mexc_trio.settings.targets import ServerTarget, parse_store
from tools.clickhouse import ClickHouseServer

CLUSTER: Final = Path(__file__).parents[2] / "infra" / "cluster"
SHARDS: Final = [["shard-1a", "shard-1b"], ["shard-2a", "shard-2b"]]


@pytest.fixture
def services() -> Mapping[str, Any]:
    """Load the compose file's services."""
    loaded = yaml.safe_load((CLUSTER / "compose.yaml").read_text())
    used = [
        volume.split(":")[0]
        for service in loaded["services"].values()
        for volume in service["volumes"]
    ]
    for volume in used:
        assert (
            (CLUSTER / volume).is_file() if volume.startswith(".") else volume in loaded["volumes"]
        )
    # No two share one.
    named = [volume for volume in used if not volume.startswith(".")]
    assert len(named) == len(set(named)) == len(loaded["volumes"])
    services = loaded["services"]
    assert isinstance(services, dict)
    return services


def test_each_recorder_has_a_shard(services: Mapping[str, Any]) -> None:
    """Its hosts are the replicas of one shard, as the servers know the cluster."""
    configured = ET.parse(CLUSTER / "cluster.xml").getroot()  # noqa: S314 - our own file
    known = [
        [host.text for host in shard.iter("host")]
        for shard in configured.iter("shard")
        if len(shard)
    ]
    assert known == SHARDS
    for number, hosts in enumerate(SHARDS, 1):
        recorder = services[f"recorder-{number}"]
        url = re.sub(r"\$\{[^}]*\}", "x", recorder["environment"]["MEXC_TRIO_STORE"])
        store = parse_store(url)
        assert isinstance(store, ServerTarget)
        assert [one.host for one in store.hosts] == hosts
        shard = f"{number}/{len(SHARDS)}"
        assert recorder["command"] == ["*_USDT", "--shard", shard, "--cluster", "main"]
        for host in hosts:
            environment = services[host]["environment"]
            assert (environment["SHARD"], environment["REPLICA"]) == (str(number), host)
            assert services[host]["hostname"] == host


def test_ports_are_bound_to_loopback_only(services: Mapping[str, Any]) -> None:
    """As in the example of one server."""
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_a_server_takes_the_files_and_moves_what_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It knows its place, has both tiers, and old rows lie on the cold one."""
    for name, value in (("SHARD", "2"), ("REPLICA", "shard-2b"), ("CLUSTER_SECRET", "s")):
        monkeypatch.setenv(name, value)
    config_d = tmp_path / "config.d"
    config_d.mkdir()
    for name in ("cluster.xml", "storage.xml"):
        text = (CLUSTER / name).read_text().replace("<path>/cold/", f"<path>{tmp_path}/cold/")
        # Without a Keeper, no table of this server needs one.
        text = re.sub("<zookeeper>.*</zookeeper>", "", text, flags=re.DOTALL)
        (config_d / name).write_text(text)
    with ClickHouseServer(config_d=config_d) as server:
        assert server.execute("SELECT getMacro('shard'), getMacro('replica')") == [
            ("2", "shard-2b")
        ]
        found = server.execute(
            "SELECT shard_num, host_name FROM system.clusters WHERE cluster = 'main' ORDER BY ALL"
        )
        assert found == [(n, host) for n, hosts in enumerate(SHARDS, 1) for host in hosts]
        table = market_table("btc", TableEngine.MERGETREE)
        server.execute(f"CREATE TABLE mexc_data.btc {table.definition()}")
        lines = [
            line
            for line in (CLUSTER / "ttl.sql").read_text().splitlines()
            if line.startswith("ALTER TABLE mexc_data.btc ON CLUSTER main ")
        ]
        assert len(lines) == 1
        server.execute(lines[0].replace(" ON CLUSTER main", "").rstrip(";"))
        server.execute(
            "INSERT INTO mexc_data.btc "
            "SELECT now64(3) - toIntervalDay(number * 60), 't', '', number FROM numbers(2)"
        )
        disks = server.execute(
            "SELECT min(disk_name), count() FROM system.parts WHERE table = 'btc' AND active "
            "GROUP BY partition ORDER BY partition"
        )
        assert disks == [("cold", 1), ("default", 1)]
