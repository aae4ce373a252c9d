"""The command line's frame: its name, its version, what stands below every help page."""

import cyclopts
from cyclopts import Group

from mexc_trio import __version__

_EPILOGUE = (
    "Every option is also a key of settings.ini and an environment variable: --ping-interval is"
    " ping_interval in the file and MEXC_TRIO_PING_INTERVAL in the environment. The command line"
    " comes first, then the environment, the file, the default. A server's password is best kept in"
    " MEXC_TRIO_PASSWORD or in the file."
    "\n\n"
    "Exit codes: 0 done, or stopped by Ctrl-C, SIGTERM, SIGHUP or --duration; 1 a symbol was"
    " stopped by its errors, or the command failed; 2 wrong arguments or settings, or a store that"
    " does not work at the first start; 130 a second Ctrl-C."
)

app = cyclopts.App(
    name="mexc-trio",
    version=__version__,
    usage="Usage: mexc-trio SYMBOL... [OPTIONS]\n       mexc-trio COMMAND [SYMBOL...] [OPTIONS]",
    help_format="plaintext",
    help_epilogue=_EPILOGUE,
    group_commands=Group("Commands", sort_key=0),
    result_action="return_value",
    exit_on_error=False,
    print_error=False,
    verbose=False,
    suppress_keyboard_interrupt=False,
)
app.register_install_completion_command(help="Install completion for the shell that is in use.")
