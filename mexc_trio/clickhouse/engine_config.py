"""The configuration of an embedded engine: its ports, its users, and what each of them may.

`default` is the engine's own session, without a password since that is how it logs in; one session
is all it may have. `recorder` writes. `commands` is what `mexc-trio sql`, `verify` and the others
read with. `reader` is for everybody else, and may read what is recorded, within bounds.

Readers may change no setting but those listed here. A list of what is forbidden would not do:
`output_format_schema`, for one, makes the engine write a file of the caller's choosing. Nor may
they take another profile, since each of those says of `readonly` what they may not.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

import attrs

from mexc_trio.files import write_own
from mexc_trio.settings.address import LOOPBACK, Address

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
"""The macro that has what an engine's start is known by."""
WHO: Final = f"SELECT getMacro('{START}')"
"""What an engine is asked, to know that it is ours: nobody else was told what it says."""

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


@attrs.frozen
class StatementLimits:
    """What one user's statements may use."""

    seconds: int
    memory: int
    """Bytes, of one statement and of all together."""
    disk: int
    """Bytes of temporary files."""
    statements: int
    """How many may run at the same time."""
    sessions: int
    """How many connections of the native protocol, and requests, it may have at the same time."""

    def profile(self) -> str:
        """Return the settings of a profile."""
        values = {
            "max_execution_time": self.seconds,
            "max_memory_usage": self.memory,
            "max_memory_usage_for_user": self.memory,
            "max_temporary_data_on_disk_size_for_user": self.disk,
            "max_concurrent_queries_for_user": self.statements,
            "max_sessions_for_user": self.sessions,
            "receive_timeout": HALF_SENT,
            # One thread also returns a table's rows in the order of insertion.
            "max_threads": 1,
            # Behind whoever records, when the processor is short.
            "os_threads_nice_value_query": 10,
        }
        return "".join(f"<{name}>{value}</{name}>" for name, value in values.items())

    def constraints(self) -> Mapping[str, str]:
        """Return what holds for some of the settings that may be changed."""
        # In ClickHouse, no time at all is as much as there is.
        seconds = f"<min>1</min><max>{self.seconds}</max>"
        return {"max_execution_time": seconds, "max_threads": "<max>1</max>"}


READERS: Final = StatementLimits(seconds=600, memory=2**30, disk=2**28, statements=4, sessions=100)


@attrs.frozen
class Passwords:
    """Of an engine's users."""

    recorder: str = attrs.field(repr=False)
    commands: str = attrs.field(repr=False)
    reader: str = attrs.field(repr=False)
    """Empty if nobody else is to read."""


def write(
    home: Path,
    *,
    start: str,
    tcp_port: int,
    http_port: int,
    listen: Address | None,
    passwords: Passwords,
) -> None:
    """Write an engine's configuration into `home`, its directory, which nobody else may read.

    `start` is what its macro `START` says, by which we know that it is this one. The ports are for
    the native protocol and for HTTP. Readers may come from where `listen` says; None is none.
    """
    write_own(home / "config.xml", _config(home, start, tcp_port, http_port, listen))
    write_own(home / "users.xml", _users(listen, passwords))


def _config(home: Path, start: str, tcp_port: int, http_port: int, listen: Address | None) -> str:
    place = escape(str(home))
    hosts = "".join(f"<listen_host>{host}</listen_host>" for host in _hosts(listen))
    return f"""<clickhouse>
    {hosts}
    <tcp_port>{tcp_port}</tcp_port>
    <http_port>{http_port}</http_port>
    <enable_webterminal>false</enable_webterminal>
    <timezone>UTC</timezone>
    <macros><{START}>{start}</{START}></macros>
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


def _users(listen: Address | None, passwords: Passwords) -> str:
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
        _user(RECORDER, passwords.recorder, from_here, "recorder", ["ALL ON *.*"]),
        _user(COMMANDS, passwords.commands, from_here, "commands", [*read, "SELECT ON *.*"]),
    ]
    if listen is not None:
        users.append(_user(READER, passwords.reader, from_there, "reader", read))
    return f"""<clickhouse>
    <profiles>
        <default><readonly>0</readonly>{tame}<receive_timeout>10</receive_timeout></default>
        <internal>
            <max_sessions_for_user>1</max_sessions_for_user>
            <max_concurrent_queries_for_user>1</max_concurrent_queries_for_user>
        </internal>
        <recorder><readonly>0</readonly>{tame}</recorder>
        <commands><readonly>2</readonly>{tame}<max_threads>1</max_threads></commands>
        <reader><readonly>1</readonly>{tame}{READERS.profile()}
            <constraints>{_changeable(READERS.constraints())}</constraints>
        </reader>
    </profiles>
    <quotas><default/></quotas>
    <users>{"".join(users)}
    </users>
</clickhouse>
"""


def _changeable(constraints: Mapping[str, str]) -> str:
    return "".join(
        f"<{name}>{constraints.get(name, '')}<changeable_in_readonly/></{name}>"
        for name in _CHANGEABLE.split()
    )


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
