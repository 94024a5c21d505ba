"""Access tokens: signed JWTs, encoded and decoded here and nowhere else (RFC 8725, RFC 9068).

The algorithm is the configured one whatever a token says; a token's `kid` only chooses among the
configured keys.
"""

import time
import uuid
from dataclasses import dataclass

import jwt

from gateway.keys import Key
from gateway.settings import Settings

TYPE = "at+jwt"
MAXIMUM_LENGTH = 4096
CLOCK_SKEW = 10.0
"""Seconds by which the clock of another machine with the same keys may be ahead."""


class InvalidTokenError(Exception):
    """The token is not one of ours, or no longer. Says why in words fit for the client."""


@dataclass(frozen=True)
class Claims:
    """What a valid token says: who, in which role, and as of which state of the account."""

    username: str
    role: str
    generation: int


class Tokens:
    """Encodes and decodes with the keys in use; the first one signs."""

    def __init__(self, settings: Settings, keys: tuple[Key, ...]) -> None:
        self._algorithm = settings.jwt_algorithm
        self._issuer = settings.jwt_issuer
        self._audience = settings.jwt_audience
        self._signing = keys[0]
        self._verifying = {key.kid: key.verifying for key in keys}
        self.lifetime = int(settings.token_minutes * 60)

    def encode(self, claims: Claims) -> str:
        """A token for `claims`, valid from now for `lifetime` seconds."""
        now = int(time.time())
        return jwt.encode(
            {
                "iss": self._issuer,
                "aud": self._audience,
                "sub": claims.username,
                "role": claims.role,
                "gen": claims.generation,
                "iat": now,
                "exp": now + self.lifetime,
                "jti": uuid.uuid4().hex,
            },
            self._signing.signing,
            algorithm=self._algorithm,
            headers={"kid": self._signing.kid, "typ": TYPE},
        )

    def decode(self, token: str) -> Claims:
        """The claims of a valid token.

        Raises InvalidTokenError for anything that is not a token of ours that is valid now.
        """
        if len(token) > MAXIMUM_LENGTH:
            raise InvalidTokenError("the token is too long")
        try:
            header = jwt.get_unverified_header(token)
            kid = header.get("kid")
            if header.get("typ") != TYPE or kid not in self._verifying:
                raise InvalidTokenError("the token is not valid")
            payload = jwt.decode(
                token,
                self._verifying[kid],
                algorithms=[self._algorithm],
                issuer=self._issuer,
                audience=self._audience,
                options={"require": ["exp", "iat", "iss", "aud", "sub"], "strict_aud": True,
                         "verify_iat": False},  # it knows no skew for this claim alone
            )
        except jwt.ExpiredSignatureError as error:
            raise InvalidTokenError("the token has expired: log in again") from error
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise InvalidTokenError("the token is not valid") from error
        issued = payload["iat"]
        if not isinstance(issued, int | float) or issued > time.time() + CLOCK_SKEW:
            raise InvalidTokenError("the token is not valid")
        role, generation = payload.get("role"), payload.get("gen")
        if not isinstance(role, str) or not isinstance(generation, int):
            raise InvalidTokenError("the token is not valid")
        return Claims(payload["sub"], role, generation)
