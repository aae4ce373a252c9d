"""The configuration of an embedded engine: its ports, its users, and what each of them may.

`Access` has what others of the same user are to know of it, and read from a file.

`default` is the engine's own session, without a password since that is how it logs in; one session
is all it may have. `recorder` writes. `commands` is what `mexc-trio sql`, `verify` and the others
read with. `reader` is for everybody else, and may read what is recorded, within bounds.

Readers may change no setting but those listed here. A list of what is forbidden would not do:
`output_format_schema`, for one, makes the engine write a file of the caller's choosing. Nor may
they take another profile, since each of those says of `readonly` what they may not.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

import attrs

from mexc_trio.files import write_own
from mexc_trio.settings.address import LOOPBACK, Address
from mexc_trio.settings.targets import ServerTarget

MEMORY: Final = 0.5
"""Share of the machine's memory, or of a container's, that all of the engine may take.

Readers' statements have bounds of their own; this is for what a client sends before its statement
is known to be one, up to 1 GB on each of its connections. Where it is reached whoever wants more is
refused, the recorder included, whose rows then wait in the journal.
"""
HALF_SENT: Final = 30
"""Seconds without a byte after which a reader's half-sent request is forgotten."""

DATABASE: Final = "mexc_data"
RECORDER: Final = "recorder"
COMMANDS: Final = "commands"
READER: Final = "reader"
START: Final = "start"
"""The macro that says what an engine's start is known by: nobody else was told."""

# What clients send with their statements, and what changes only how much is answered and how it
# looks. None of them names a file, a host, a header or code. Grafana's ad hoc filters come as
# `additional_table_filters`, a condition as any in a statement, with no more rights. The last lines
# are what the page /play sends with each statement.
_CHANGEABLE: Final = """
    cancel_http_readonly_queries_on_client_close date_time_input_format date_time_output_format
    enable_http_compression extremes http_headers_progress_interval_ms http_wait_end_of_query
    http_zlib_compression_level join_use_nulls limit log_comment max_block_size max_bytes_to_read
    max_execution_time max_result_bytes max_result_rows max_rows_to_group_by max_rows_to_read
    max_threads group_by_overflow_mode network_compression_method offset
    output_format_arrow_compression_method output_format_arrow_string_as_string
    output_format_csv_crlf_end_of_line output_format_decimal_trailing_zeros
    output_format_json_escape_forward_slashes output_format_json_named_tuples_as_objects
    output_format_json_quote_64bit_floats output_format_json_quote_64bit_integers
    output_format_json_quote_decimals output_format_json_quote_denormals
    output_format_native_encode_types_in_binary_format
    output_format_native_use_flattened_dynamic_and_json_serialization
    output_format_parquet_compression_method output_format_parquet_string_as_string
    output_format_pretty_color output_format_pretty_max_rows output_format_pretty_row_numbers
    output_format_write_statistics read_overflow_mode result_overflow_mode
    send_progress_in_http_headers session_timezone timeout_overflow_mode use_client_time_zone

    additional_table_filters

    add_http_cors_header enable_reads_from_query_cache enable_writes_to_query_cache
    framing_output_format query_cache_nondeterministic_function_handling
    query_cache_system_table_handling query_cache_ttl send_logs_level use_query_cache
"""

# What tools look at to show which tables and columns there are.
_CATALOGUE: Final = """
    aggregate_function_combinators asynchronous_metrics collations columns
    data_skipping_indices data_type_families databases events formats functions keywords metrics
    numbers one parts settings table_engines table_functions tables time_zones
"""


_READER_SECONDS: Final = 600
"""How long a statement of a reader may take."""
_READER_LIMITS: Final = {
    "max_execution_time": _READER_SECONDS,
    # Bytes, of one statement, of all together, and of temporary files.
    "max_memory_usage": 2**30,
    "max_memory_usage_for_user": 2**30,
    "max_temporary_data_on_disk_size_for_user": 2**28,
    "max_concurrent_queries_for_user": 4,
    # Connections of the native protocol, and requests.
    "max_sessions_for_user": 100,
    "receive_timeout": HALF_SENT,
    # One thread also returns a table's rows in the order of insertion.
    "max_threads": 1,
    # Behind whoever records, when the processor is short.
    "os_threads_nice_value_query": 10,
}
_READER_CONSTRAINTS: Final = {
    # In ClickHouse, no time at all is as much as there is.
    "max_execution_time": f"<min>1</min><max>{_READER_SECONDS}</max>",
    "max_threads": "<max>1</max>",
}


@attrs.frozen
class Access:
    """Where an engine answers, and the passwords that it takes."""

    server_start_id: str
    """Another one for each start."""
    tcp_port: int
    http_port: int
    recorder: str = attrs.field(repr=False)
    commands: str = attrs.field(repr=False)

    def target(self, user: str) -> ServerTarget:
        """Return the engine as any other server.

        But whoever is first at the port of one that has died, another user's program perhaps, would
        take any password, and then each row for good. What he cannot say is what only we can read.
        """
        return ServerTarget(
            host=LOOPBACK,
            port=self.tcp_port,
            http_port=self.http_port,
            user=user,
            password=self.recorder if user == RECORDER else self.commands,
            database=DATABASE,
            known_by=(f"SELECT getMacro('{START}')", self.server_start_id),
        )

    @classmethod
    def load(cls, path: Path) -> "Access | None":
        """Read it from a file; None if there is none, or none that can be understood."""
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return None


def write(home: Path, access: Access, listen: Address | None, reader_password: str) -> None:
    """Write an engine's configuration into `home`, its directory, which nobody else may read.

    Readers may come from where `listen` says; None is none.
    """
    write_own(home / "config.xml", _config(home, access, listen))
    write_own(home / "users.xml", _users(access, listen, reader_password))


def _config(home: Path, access: Access, listen: Address | None) -> str:
    place = escape(str(home))
    hosts = "".join(f"<listen_host>{host}</listen_host>" for host in _hosts(listen))
    return f"""<clickhouse>
    {hosts}
    <tcp_port>{access.tcp_port}</tcp_port>
    <http_port>{access.http_port}</http_port>
    <enable_webterminal>false</enable_webterminal>
    <timezone>UTC</timezone>
    <macros><{START}>{access.server_start_id}</{START}></macros>
    <users_config>{place}/users.xml</users_config>
    <log-level>warning</log-level>
    <logger><log>{place}/engine.log</log><size>1M</size><count>1</count></logger>
    <user_files_path>{place}/none/</user_files_path>
    <format_schema_path>{place}/none/</format_schema_path>
    <remote_url_allow_hosts></remote_url_allow_hosts>
    <access_control_improvements>
        <select_from_system_db_requires_grant>true</select_from_system_db_requires_grant>
        <select_from_information_schema_requires_grant>true</select_from_information_schema_requires_grant>
        <settings_constraints_replace_previous>true</settings_constraints_replace_previous>
        <table_engines_require_grant>true</table_engines_require_grant>
    </access_control_improvements>
    <max_server_memory_usage_to_ram_ratio>{MEMORY}</max_server_memory_usage_to_ram_ratio>
    <max_connections>1024</max_connections>
    <mark_cache_size>16777216</mark_cache_size>
    <query_cache><max_size_in_bytes>16777216</max_size_in_bytes></query_cache>
    <database_atomic_delay_before_drop_table_sec>0</database_atomic_delay_before_drop_table_sec>
    <asynchronous_metrics_update_period_s>60</asynchronous_metrics_update_period_s>
</clickhouse>
"""


def _hosts(listen: Address | None) -> tuple[str, ...]:
    if listen is None or listen.host in (LOOPBACK, "localhost"):
        return (LOOPBACK,)
    if listen.host in ("0.0.0.0", "::"):  # noqa: S104 - if the user wants it
        return (listen.host,)
    return (LOOPBACK, listen.host)


def _users(access: Access, listen: Address | None, reader_password: str) -> str:
    from_here = ("127.0.0.1", "::1")
    from_there = from_here if listen is None or listen.is_loopback else ("::/0",)
    # A table function of chdb's own that looks for Python's variables, and ends the engine when
    # there is no Python around it. What old clients can unpack, and nothing packed twice for those
    # of JDBC that say `compress=1` and accept LZ4 over HTTP as well.
    tame = """
            <enable_http_compression>0</enable_http_compression>
            <allow_python_table_function>0</allow_python_table_function>
            <allow_introspection_functions>0</allow_introspection_functions>
            <network_compression_method>LZ4</network_compression_method>"""
    read = [
        f"SELECT, SHOW ON {DATABASE}.*",
        *(f"SELECT ON system.{name}" for name in _CATALOGUE.split()),
    ]
    read += ["SELECT ON information_schema.*", "SELECT ON INFORMATION_SCHEMA.*"]
    users = [
        _user("default", None, from_here, "internal", ["SYSTEM LISTEN ON *.*"]),
        _user(RECORDER, access.recorder, from_here, "recorder", ["ALL ON *.*"]),
        _user(COMMANDS, access.commands, from_here, "commands", [*read, "SELECT ON *.*"]),
    ]
    if listen is not None:
        users.append(_user(READER, reader_password, from_there, "reader", read))
    limits = "".join(f"<{name}>{value}</{name}>" for name, value in _READER_LIMITS.items())
    changeable = "".join(
        f"<{name}>{_READER_CONSTRAINTS.get(name, '')}<changeable_in_readonly/></{name}>"
        for name in _CHANGEABLE.split()
    )
    return f"""<clickhouse>
    <profiles>
        <default><readonly>0</readonly>{tame}<receive_timeout>10</receive_timeout></default>
        <internal>
            <max_sessions_for_user>1</max_sessions_for_user>
            <max_concurrent_queries_for_user>1</max_concurrent_queries_for_user>
        </internal>
        <recorder><readonly>0</readonly>{tame}</recorder>
        <commands><readonly>2</readonly>{tame}<max_threads>1</max_threads></commands>
        <reader><readonly>1</readonly>{tame}{limits}
            <constraints>{changeable}</constraints>
        </reader>
    </profiles>
    <quotas><default/></quotas>
    <users>{"".join(users)}
    </users>
</clickhouse>
"""


def _user(
    name: str, password: str | None, networks: Iterable[str], profile: str, grants: Iterable[str]
) -> str:
    login = "<no_password/>"
    if password is not None:
        digest = hashlib.sha256(password.encode()).hexdigest()
        login = f"<password_sha256_hex>{digest}</password_sha256_hex>"
    database = DATABASE if profile in (COMMANDS, READER) else "default"
    ips = "".join(f"<ip>{network}</ip>" for network in networks)
    queries = "".join(f"<query>GRANT {grant}</query>" for grant in grants)
    return f"""
        <{name}>
            {login}<networks>{ips}</networks>
            <profile>{profile}</profile><quota>default</quota>
            <default_database>{database}</default_database>
            <grants>{queries}</grants>
        </{name}>"""
