"""The keys that sign tokens: from the environment, or made at the first start and kept in a file.

Several keys verify at once and the first one signs, so that keys can be rotated without logging
anyone out: put a new key first, and drop the old one when its last token has expired.
"""

import json
import secrets
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from gateway.settings import Algorithm, Settings, SettingsError
from gateway.state import exclusive, write_private

FILE = "secrets.json"
MINIMUM_RSA_BITS = 2048


@dataclass(frozen=True)
class Key:
    """One key; `signing` is None when only the public half is known."""

    kid: str
    signing: Any
    verifying: Any


def load(settings: Settings) -> tuple[Key, ...]:
    """The keys of the configured algorithm, the signing one first.

    Raises SettingsError for a key that cannot be read, or a secrets file that others can read.
    """
    if settings.jwt_keys:
        given = {kid: key.get_secret_value() for kid, key in settings.jwt_keys.items()}
        if settings.jwt_algorithm != "HS256":
            given = {kid: _read_pem(kid, Path(path)) for kid, path in given.items()}
    else:
        with exclusive(settings.state_dir / f"{FILE}.lock"):
            given = _stored(settings) or _add(settings)
    found = tuple(_parse(settings.jwt_algorithm, kid, text) for kid, text in given.items())
    if found[0].signing is None:
        raise SettingsError(f"GATEWAY_JWT_KEYS: the first key {found[0].kid!r} signs, so it has to "
                            "be a private one")
    return found


def rotate(settings: Settings) -> str:
    """Put a new signing key before the stored ones; returns its name."""
    _require_file(settings)
    with exclusive(settings.state_dir / f"{FILE}.lock"):
        return next(iter(_add(settings)))


def drop(settings: Settings, kid: str) -> None:
    """Forget a stored key: the tokens it signed stop working.

    Raises SettingsError when there is no such key, or when it is the one that signs.
    """
    _require_file(settings)
    with exclusive(settings.state_dir / f"{FILE}.lock"):
        stored = _stored(settings)
        if kid not in stored:
            raise SettingsError(f"there is no key {kid!r} (keys: {', '.join(stored) or 'none'})")
        if kid == next(iter(stored)):
            raise SettingsError(f"the key {kid!r} signs: rotate first, then drop it")
        _write(settings, {k: text for k, text in stored.items() if k != kid})


def _require_file(settings: Settings) -> None:
    if settings.jwt_keys:
        raise SettingsError("the keys come from GATEWAY_JWT_KEYS: change them there")


def _stored(settings: Settings) -> dict[str, str]:
    path = settings.state_dir / FILE
    if not path.exists():
        return {}
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SettingsError(
            f"{path} can be read by others: `chmod 600 {path}`, and rotate the keys"
        )
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))[settings.jwt_algorithm])
    except KeyError:
        return {}
    except (ValueError, TypeError) as error:
        raise SettingsError(f"{path} is damaged: restore it, or remove it (this ends all "
                            "sessions)") from error


def _add(settings: Settings) -> dict[str, str]:
    stored = _stored(settings)
    kid = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
    keys = {kid: _generate(settings.jwt_algorithm), **stored}
    _write(settings, keys)
    return keys


def _write(settings: Settings, keys: dict[str, str]) -> None:
    path = settings.state_dir / FILE
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write_private(path, json.dumps({**content, settings.jwt_algorithm: keys}, indent=1))


def _generate(algorithm: Algorithm) -> str:
    if algorithm == "HS256":
        return secrets.token_hex(32)
    private = (
        ed25519.Ed25519PrivateKey.generate()
        if algorithm == "EdDSA"
        else rsa.generate_private_key(public_exponent=65537, key_size=3072)
    )
    return private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def _read_pem(kid: str, path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"GATEWAY_JWT_KEYS: the key {kid!r} has to be the path of a PEM file that can be read"
        ) from error


def _parse(algorithm: Algorithm, kid: str, text: str) -> Key:
    if algorithm == "HS256":
        return Key(kid, text, text)
    pem = text.encode()
    try:
        if b"PRIVATE" in pem:
            private: Any = serialization.load_pem_private_key(pem, password=None)
            key = Key(kid, private, private.public_key())
        else:
            key = Key(kid, None, serialization.load_pem_public_key(pem))
    except (ValueError, TypeError) as error:
        raise SettingsError(f"GATEWAY_JWT_KEYS: the key {kid!r} is not a PEM key") from error
    public = key.verifying
    wanted = rsa.RSAPublicKey if algorithm == "RS256" else ed25519.Ed25519PublicKey
    if not isinstance(public, wanted):
        raise SettingsError(f"GATEWAY_JWT_KEYS: the key {kid!r} is not one for {algorithm}")
    if isinstance(public, rsa.RSAPublicKey) and public.key_size < MINIMUM_RSA_BITS:
        raise SettingsError(
            f"GATEWAY_JWT_KEYS: the key {kid!r} has fewer than {MINIMUM_RSA_BITS} bits"
        )
    return key
