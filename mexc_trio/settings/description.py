"""What holds, as the log tells it at the start."""

from mexc_trio.settings.definitions import DEFAULT, SETTINGS, Settings
from mexc_trio.settings.routes import routes_text
from mexc_trio.settings.values import mask


def values(settings: Settings) -> dict[str, str]:
    """Return the value of each setting as text, without secrets."""
    shown: dict[str, object] = {key: getattr(settings, key) for key in SETTINGS}
    shown["channels"] = ",".join(settings.channels)
    shown["symbols"] = " ".join((*settings.symbols, *settings.patterns))
    shown["symbols_per_connection"] = settings.symbols_per_connection or "auto"
    shown["listen"] = settings.listen or "off"
    shown["metrics"] = settings.metrics or "off"
    shown["on_event"] = settings.on_event and settings.on_event[0]  # the rest may be a secret
    shown["route"] = routes_text(settings.route)
    shown["quote"] = " ".join(settings.quote or ())
    shown["password"] = "***" if settings.password else None
    shown["reader_password"] = "***" if settings.reader_password else None
    shown["state_dir"] = settings.state_directory
    shown["url"] = mask(settings.url)
    return {key: _text(value) for key, value in shown.items()}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value in (None, "", ()) else str(value)


def describe(settings: Settings) -> list[str]:
    """Return what holds, a line for each source and the defaults last, without secrets."""
    parts: dict[str, list[str]] = {}
    for key, value in values(settings).items():
        parts.setdefault(settings.sources.get(key, DEFAULT), []).append(f"{key} = {value}")
    for symbol, override in settings.overrides.items():
        texts = [
            f"[{symbol}] {key} = {_override_text(key, value)}" for key, value in override.items()
        ]
        parts.setdefault(str(settings.config), []).extend(texts)
    parts[DEFAULT] = parts.pop(DEFAULT, [])
    return [f"{source}: {', '.join(texts)}" for source, texts in parts.items() if texts]


def _override_text(key: str, value: object) -> str:
    if key == "route":
        return routes_text(value)  # type: ignore[arg-type]
    return ",".join(value) if isinstance(value, tuple) else str(value)
